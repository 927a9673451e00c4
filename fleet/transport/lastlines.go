package transport

import (
	"io"
	"strings"
	"sync"
	"time"
)

// LastLines keeps the end of a host's standard error, fit for a terminal.
type LastLines struct {
	mu   sync.Mutex
	b    []byte
	done chan struct{} // of CollectLastLines: closed at the end of the stream
}

const lastBytes = 1024

// CollectLastLines reads a stream to its end beside everything else.
func CollectLastLines(r io.Reader) *LastLines {
	l := &LastLines{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		_, _ = io.Copy(l, r) // Session.Wait returns the error
	}()
	return l
}

func (l *LastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p[max(0, len(p)-lastBytes):]...)
	l.b = l.b[max(0, len(l.b)-lastBytes):]
	return len(p), nil
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
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(l.b)), "\n")
	lines = lines[max(0, len(lines)-3):]
	for i, s := range lines {
		lines[i] = Printable(s)
	}
	return strings.Join(lines, " / ")
}
