package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// fake is a guest in memory. Each function is asked with the number of looks before.
type fake struct {
	looks int
	run   func(look int, argv string) (int, string, error)
	page  func(look int, request string) string
	ready func(look int) error
	dead  func(look int) error
}

func (f *fake) Run(ctx context.Context, argv []string) (int, string, error) {
	if f.run == nil {
		<-ctx.Done()
		return 0, "", context.Cause(ctx)
	}
	return f.run(f.looks, strings.Join(argv, " "))
}

func (f *fake) Dial(_ context.Context, addr netip.AddrPort) (Conn, error) {
	if f.page == nil {
		return nil, errors.New("connect to " + addr.String() + ": connection refused")
	}
	ours, theirs := net.Pipe()
	look := f.looks
	go func() {
		defer theirs.Close()
		buf := make([]byte, 4096)
		n, _ := theirs.Read(buf)
		_, _ = io.WriteString(theirs, f.page(look, string(buf[:n])))
	}()
	return ours, nil
}

func (f *fake) Ready() error {
	if f.ready == nil {
		return nil
	}
	return f.ready(f.looks)
}

func (f *fake) Alive() error {
	defer func() { f.looks++ }()
	if f.dead == nil {
		return nil
	}
	return f.dead(f.looks)
}

var (
	local = netip.MustParseAddrPort("127.0.0.1:80")
	page  = api.HealthCheck{HTTP: &api.HealthHTTP{Addr: local, Host: "localhost", Path: "/healthz?a=b"}}
	exec  = api.HealthCheck{Exec: []string{"test", "-f", "/run/up"}}
)

func quick(t *testing.T) {
	was := interval
	interval = time.Millisecond
	t.Cleanup(func() { interval = was })
}

func TestWait(t *testing.T) {
	quick(t)
	answer := func(text string) func(int, string) string { return func(int, string) string { return text } }
	from := func(look int) func(int, string) (int, string, error) {
		return func(now int, _ string) (int, string, error) {
			if now <= look {
				return 3, "not yet", nil
			}
			return 0, "", nil
		}
	}
	for _, row := range []struct {
		name  string
		guest fake
		check api.HealthCheck
		stays time.Duration
		want  string // a part of the error; empty: healthy
	}{
		{"a command that succeeds", fake{run: from(0)}, exec, 0, ""},
		{"a command that succeeds later", fake{run: from(5)}, exec, 0, ""},
		{"a command that fails", fake{run: from(1 << 30)}, exec, 0, "not healthy within 50ms: exec test -f /run/up: exit status 3: not yet"},
		{"a command that cannot be run", fake{run: func(int, string) (int, string, error) { return 0, "", errors.New("no such program") }}, exec, 0, "exec test -f /run/up: no such program"},
		{"a command that does not end", fake{}, exec, 0, "not healthy within 50ms: exec test -f /run/up: no answer"},
		{"health that lasts", fake{run: from(0)}, exec, 10 * time.Millisecond, ""},
		{"health that comes and goes", fake{run: func(now int, _ string) (int, string, error) { return now % 2, "", nil }}, exec, 30 * time.Millisecond, "not healthy within 50ms"},
		{"health that comes too late to last", fake{run: from(5)}, exec, time.Hour, "only in its last 0s, and not for 1h0m0s; before that: exec test -f /run/up: exit status 3: not yet"},
		{"a guest that ends", fake{run: from(1 << 30), dead: func(look int) error {
			if look < 3 {
				return nil
			}
			return errors.New("it does not run any more: exit status 1")
		}}, exec, 0, "it does not run any more: exit status 1"},

		{"a unit that is active", fake{run: func(_ int, argv string) (int, string, error) {
			if argv != "systemctl is-active -- nginx.service" {
				return 1, argv, nil
			}
			return 0, "active", nil
		}}, api.HealthCheck{Unit: "nginx.service"}, 0, ""},
		{"a unit that is not", fake{run: func(int, string) (int, string, error) { return 3, "activating", nil }}, api.HealthCheck{Unit: "nginx.service"}, 0, "unit nginx.service: exit status 3: activating"},

		{"a service that listens", fake{page: answer("")}, api.HealthCheck{TCP: local}, 0, ""},
		{"a service that does not", fake{}, api.HealthCheck{TCP: local}, 0, "tcp 127.0.0.1:80: connect to 127.0.0.1:80: connection refused"},

		{"a page", fake{page: func(_ int, request string) string {
			if !strings.HasPrefix(request, "GET /healthz?a=b HTTP/1.1\r\nHost: localhost\r\n") || !strings.HasSuffix(request, "\r\n\r\n") {
				return "HTTP/1.1 400 " + request
			}
			return "HTTP/1.1 200 OK\r\nServer: x\r\n\r\nfine"
		}}, page, 0, ""},
		{"a page that leads elsewhere", fake{page: answer("HTTP/1.0 301 Moved\r\n\r\n")}, page, 0, ""},
		{"a page with an error", fake{page: answer("HTTP/1.1 503 No\r\n\r\n")}, page, 0, "http http://localhost/healthz?a=b: status 503, want 200 to 399"},
		{"a page with another status than it should have", fake{page: answer("HTTP/1.1 200 OK\r\n\r\n")},
			api.HealthCheck{HTTP: &api.HealthHTTP{Addr: local, Host: "localhost", Path: "/", Status: 204}}, 0, "status 200, want 204"},
		{"an answer that is no HTTP", fake{page: answer("220 mail ESMTP\r\n")}, page, 0, `the answer is not HTTP: "220 mail ESMTP"`},
		{"no answer", fake{page: answer("")}, page, 0, "the answer ends after 0 bytes: EOF"},
		{"an answer without end", fake{page: answer(strings.Repeat("x", 1<<20))}, page, 0, "the answer is not HTTP"},

		{"an init that is ready", fake{ready: func(look int) error {
			if look > 3 {
				return nil
			}
			return errors.New("it has not come")
		}}, api.HealthCheck{Ready: true}, 0, ""},
		{"an init that is never ready", fake{ready: func(int) error { return errors.New("it has not come") }}, api.HealthCheck{Ready: true}, 0, "READY=1: it has not come"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var told []string
			h := api.Health{Checks: []api.HealthCheck{row.check}, HealthyFor: row.stays, Deadline: 50 * time.Millisecond}
			err := Wait(t.Context(), &row.guest, h, func(text string) { told = append(told, text) })
			switch {
			case (err == nil) != (row.want == ""), err != nil && !strings.Contains(err.Error(), row.want):
				t.Errorf("got %v, want %q", err, row.want)
			case err != nil && len(err.Error()) > 600:
				t.Errorf("%d bytes of error", len(err.Error()))
			case row.want != "" && len(told) == 0:
				t.Error("nothing was said meanwhile")
			}
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	quick(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("interrupted")
	h := api.Health{Checks: []api.HealthCheck{exec}, Deadline: time.Hour}
	guest := &fake{run: func(look int, _ string) (int, string, error) {
		if look == 3 {
			cancel(over)
		}
		return 1, "", nil
	}}
	if err := Wait(ctx, guest, h, func(string) {}); !errors.Is(err, over) {
		t.Errorf("got %v", err)
	}
}

func FuzzGet(f *testing.F) {
	for _, seed := range []string{"HTTP/1.1 200 OK\r\n", "HTTP/1.1 \n", "", "\n", "HTTP/2 200\n", "HTTP/1.1 99999999999999999999\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		guest := &fake{page: func(int, string) string { return string(answer) }}
		err := get(t.Context(), guest, *page.HTTP)
		if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.") {
			t.Errorf("%q is taken for a page", answer)
		}
		if err != nil && len(err.Error()) > 4*maxText+100 {
			t.Errorf("%d bytes of error", len(err.Error()))
		}
	})
}
