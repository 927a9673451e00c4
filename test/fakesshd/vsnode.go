package fakesshd

import (
	"context"
	"fmt"
	"regexp"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/serve"
)

// carried finds the vsnodes that fleet/push looks for on a host, in its command.
var carried = regexp.MustCompile(`for b in ([0-9a-f]{64}):`)

// Vsnode answers the command that starts vsnode as a host does that has it already.
func (s *Server) Vsnode(command string, ch ssh.Channel) uint32 {
	m := carried.FindStringSubmatch(command)
	if m == nil {
		fmt.Fprintln(ch.Stderr(), "fakesshd: only vsnode runs here")
		return 127
	}
	fmt.Fprintf(ch, "\x00vsnode-exec-1 %s\n", m[1])
	if err := serve.Serve(s.ctx, ch, ch, &Host{state: s.options.State}); err != nil {
		fmt.Fprintln(ch.Stderr(), "vsnode:", err)
		return 1
	}
	return 0
}

// Host is a host in memory. Other requests than those below panic, which package serve
// answers by an error.
type Host struct {
	serve.Host

	state *api.State
}

// State returns the state that the server was given, or that of a machine without guests.
func (h *Host) State(context.Context) (api.State, error) {
	if h.state != nil {
		return *h.state, nil
	}
	return api.State{Host: api.Host{Hostname: "fake", Version: "fake", Kernel: "6.12.0", OS: "fakesshd", Arch: "amd64"}}, nil
}

// Lease is always granted.
func (h *Host) Lease(_ context.Context, req api.Lease) (api.LeaseAnswer, error) {
	return api.LeaseAnswer{Held: true, By: req.Holder}, nil
}

// Release does nothing.
func (h *Host) Release(context.Context) error { return nil }

// Files returns no differences.
func (h *Host) Files(context.Context, api.FilesRequest) (api.FilesAnswer, error) {
	return api.FilesAnswer{}, nil
}

// Apply takes no step, and says that it did.
func (h *Host) Apply(_ context.Context, req api.Apply, _ func(api.Event)) (api.ApplyResult, error) {
	var r api.ApplyResult
	for range req.Steps {
		r.Results = append(r.Results, api.StepResult{Outcome: api.Changed})
	}
	return r, nil
}
