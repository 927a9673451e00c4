package transport

import (
	"io"
	"strings"
	"time"
)

// LastLines keeps the end of a host's standard error, made printable.
type LastLines struct {
	tail
	done chan struct{} // of CollectLastLines: closed at the end of the stream
}

// CollectLastLines starts to read a stream to its end in the background.
func CollectLastLines(r io.Reader) *LastLines {
	l := &LastLines{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		// Little comes, and each of a thousand hosts has such a buffer.
		_, _ = io.CopyBuffer(l, r, make([]byte, 512)) // Session.Wait returns the error
	}()
	return l
}

// String returns the last three lines as one, once the session has ended. As a
// process that the session left behind may hold the stream open, it waits for the
// end of the stream for at most a second.
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
