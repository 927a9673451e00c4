package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// Guest is a running guest, as its checks need it.
type Guest interface {
	// Run runs a command in the guest and returns its exit status, and the last line
	// that it wrote.
	Run(ctx context.Context, argv []string) (status int, lastLine string, err error)
	// Dial connects to a service from the guest's own network.
	Dial(ctx context.Context, addr netip.AddrPort) (Conn, error)
	// Ready returns nil if the guest's init has said that it is ready, or was not
	// started by the run that asks.
	Ready() error
	// Alive returns why the guest does not run any more, or nil.
	Alive() error
}

// Conn is a connection to a service of a guest.
type Conn interface {
	io.ReadWriteCloser
	SetDeadline(t time.Time) error
}

const lookTimeout = 10 * time.Second // of one check

// interval is the time between two looks at all checks.
var interval = time.Second

// Wait waits until a guest is healthy. report is called with what it waits for,
// whenever that changes. The error has what was wrong last.
func Wait(ctx context.Context, g Guest, want api.Health, report func(string)) error {
	patience := want.Patience()
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var since time.Time // all checks pass since then
	var last error
	told := ""
	for {
		if err := g.Alive(); err != nil {
			return err
		}
		wait := interval
		switch err := look(within, g, want.Checks); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && since.IsZero():
			since = time.Now()
		case err != nil && (within.Err() == nil || last == nil): // else the end of the deadline is what is wrong
			since, last = time.Time{}, err
		}
		if !since.IsZero() {
			left := want.HealthyFor - time.Since(since)
			if left <= 0 {
				return nil
			}
			wait = min(wait, left)
		}
		if text := state(since, last, want.HealthyFor); text != told {
			told = text
			report(text)
		}
		if !pause(within, wait) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return late(patience, since, last, want.HealthyFor)
		}
	}
}

// state describes what is waited for.
func state(since time.Time, last error, healthyFor time.Duration) string {
	switch {
	case !since.IsZero():
		return fmt.Sprintf("healthy, and to stay so for %s", healthyFor)
	case last != nil:
		return "waiting until it is healthy: " + last.Error()
	}
	return "waiting until it is healthy"
}

// late returns the error at the end of the deadline.
func late(patience time.Duration, since time.Time, last error, healthyFor time.Duration) error {
	var err error
	switch {
	case !since.IsZero():
		err = fmt.Errorf("not healthy within %s: only in its last %s, and not for %s", patience, time.Since(since).Round(time.Second), healthyFor)
		if last != nil {
			err = fmt.Errorf("%w; before that: %w", err, last)
		}
	default:
		err = fmt.Errorf("not healthy within %s: %w", patience, last)
	}
	return err
}

// look returns why the first check that does not pass does not, or nil.
func look(ctx context.Context, g Guest, checks []api.HealthCheck) error {
	for _, c := range checks {
		if err := lookAt(ctx, g, c); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

func lookAt(ctx context.Context, g Guest, c api.HealthCheck) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errNoAnswer)
	defer cancel()
	var err error
	switch {
	case len(c.Exec) > 0:
		err = run(ctx, g, c.Exec)
	case c.TCP.IsValid():
		var conn Conn
		if conn, err = g.Dial(ctx, c.TCP); err == nil {
			err = conn.Close()
		}
	case c.HTTP != nil:
		err = get(ctx, g, *c.HTTP)
	case c.Unit != "":
		err = run(ctx, g, []string{"systemctl", "is-active", "--", c.Unit})
	case c.Ready:
		err = g.Ready()
	default:
		err = errors.New("the check says nothing")
	}
	switch {
	case err != nil && context.Cause(ctx) == errNoAnswer:
		return errNoAnswer
	case err != nil && ctx.Err() != nil:
		return errors.New("no answer")
	}
	return err
}

var errNoAnswer = fmt.Errorf("no answer within %s", lookTimeout)

// maxText bounds what is quoted of a guest's answer.
const maxText = 200

func run(ctx context.Context, g Guest, argv []string) error {
	status, line, err := g.Run(ctx, argv)
	switch {
	case err != nil || status == 0:
		return err
	case line != "":
		return fmt.Errorf("exit status %d: %s", status, line[:min(len(line), maxText)])
	}
	return fmt.Errorf("exit status %d", status)
}

// get asks for a page, and compares the status of the answer. The rest of it is not
// read. Package net/http would double the size of vsnode.
func get(ctx context.Context, g Guest, want api.HealthHTTP) error {
	conn, err := g.Dial(ctx, want.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, "GET "+want.Path+" HTTP/1.1\r\nHost: "+want.Host+"\r\nUser-Agent: vsfleet\r\nAccept: */*\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	line, err := firstLine(conn)
	if err != nil {
		return err
	}
	proto, rest, _ := bytes.Cut(line, []byte{' '})
	number, _, _ := bytes.Cut(rest, []byte{' '})
	status, err := strconv.Atoi(string(number))
	if err != nil || !bytes.HasPrefix(proto, []byte("HTTP/1.")) {
		return fmt.Errorf("the answer is not HTTP: %q", line[:min(len(line), maxText)])
	}
	switch {
	case status == want.Status, want.Status == 0 && status >= 200 && status < 400:
		return nil
	case want.Status == 0:
		return fmt.Errorf("status %d, want 200 to 399", status)
	}
	return fmt.Errorf("status %d, want %d", status, want.Status)
}

// firstLine reads the first line of an answer.
func firstLine(r io.Reader) ([]byte, error) {
	buf := make([]byte, 0, 1024)
	for len(buf) < cap(buf) {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if line, _, ok := bytes.Cut(buf, []byte{'\n'}); ok {
			return []byte(strings.TrimRight(string(line), "\r")), nil
		}
		if err != nil {
			return nil, fmt.Errorf("the answer ends after %d bytes: %w", len(buf), err)
		}
	}
	return buf, nil
}

// pause waits for d, and reports whether ctx has not ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
