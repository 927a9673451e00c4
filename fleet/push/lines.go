package push

import (
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/transport"
)

// lastLines keeps the end of a host's standard error, fit to be shown.
type lastLines struct {
	mu   sync.Mutex
	b    []byte
	done chan struct{} // of collect: closed at the end of the stream
}

const lastBytes = 1024

// collect reads a stream to its end beside everything else.
func collect(r io.Reader) *lastLines {
	l := &lastLines{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		_, _ = io.Copy(l, r) // the end of the session is told elsewhere
	}()
	return l
}

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p[max(0, len(p)-lastBytes):]...)
	l.b = l.b[max(0, len(l.b)-lastBytes):]
	return len(p), nil
}

// String is the last lines on one, of a session that has ended. What that
// left behind may hold the stream open.
func (l *lastLines) String() string {
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
		lines[i] = transport.Printable(s)
	}
	return strings.Join(lines, " / ")
}
