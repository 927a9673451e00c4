package push

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/push/pushtest"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/internal/wire"
	"github.com/vsfleet/vsfleet/node/api"
)

// host is a host to which vsnode is pushed with these options.
type host struct {
	*pushtest.Host
	t    *testing.T
	opts Options
}

func newHost(t *testing.T, login string, config ...string) *host {
	t.Helper()
	h := pushtest.NewHost(t, login, config...)
	return &host{h, t, Options{Dir: h.Pushed, Binaries: pushtest.Vsnode(t, "one")}}
}

func (h *host) start() *Vsnode {
	h.t.Helper()
	v, err := h.opts.Start(h.t.Context(), h.Dial(), Serve)
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

// version returns a vsnode's flavour.
func version(t *testing.T, v *Vsnode) string {
	t.Helper()
	c := wire.NewConn(v.Stdout, v.Session.Stdin)
	if err := c.Send(wire.Message{ID: 1, Method: string(api.MethodState)}); err != nil {
		t.Error(err)
		return ""
	}
	m, err := c.Receive()
	if err != nil {
		t.Error(err)
		return ""
	}
	var st api.State
	if err := json.Unmarshal(m.Result, &st); err != nil {
		t.Error(err)
	}
	return st.Host.Version
}

// wantStartError fails the test unless Start fails with these texts.
func (h *host) wantStartError(want ...string) {
	h.t.Helper()
	_, err := h.opts.Start(h.t.Context(), h.Dial(), Serve)
	if err == nil {
		h.t.Fatal("vsnode started")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			h.t.Errorf("error %q\ndoes not say %q", err, w)
		}
	}
	if transport.Unreachable(err) {
		h.t.Errorf("%v: the host was reached", err)
	}
}
