package transport

import (
	"io"
	"strings"
	"time"
)

// LastLines keeps the end of a host's standard error, fit for a terminal.
type LastLines struct {
	tail
	done chan struct{} // of CollectLastLines: closed at the end of the stream
}

// CollectLastLines reads a stream to its end beside everything else.
func CollectLastLines(r io.Reader) *LastLines {
	l := &LastLines{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		_, _ = io.Copy(l, r) // Session.Wait returns the error
	}()
	return l
}

// String returns the last lines as one, once the session has ended. A process
// that the session left behind may hold the stream open: it is waited for a
// second.
func (l *LastLines) String() string {
	if l.done != nil {
		select {
		case <-l.done:
		case <-time.After(time.Second):
		}
	}
	lines := strings.Split(strings.TrimSpace(l.tail.String()), "\n")
	lines = lines[max(0, len(lines)-3):]
	for i, s := range lines {
		lines[i] = Printable(s)
	}
	return strings.Join(lines, " / ")
}
