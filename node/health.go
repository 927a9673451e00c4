package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/health"
)

// healthStep waits until a guest is healthy. Its init is not listened to any longer
// than that.
func (h *Host) healthStep(ctx context.Context, s api.Step, progress builder.Progress) (api.StepResult, error) {
	unchanged := api.StepResult{Outcome: api.Unchanged}
	if s.Health == nil {
		return unchanged, errors.New("the step does not say what is healthy")
	}
	defer h.Guests.ForgetReady(s.Name)
	err := health.Wait(ctx, checked{h, s.Name}, *s.Health, func(text string) { progress.Report(text, 0, 0) })
	if err != nil {
		return unchanged, fmt.Errorf("guest %s: %w", s.Name, err)
	}
	return unchanged, nil
}

// checked is a guest whose health is checked.
type checked struct {
	host *Host
	name string
}

func (c checked) Run(ctx context.Context, argv []string) (int, string, error) {
	var cmd api.Command
	for _, word := range argv {
		cmd.Argv = append(cmd.Argv, []byte(word))
	}
	var stdout, stderr output
	status, err := c.host.inGuest(ctx, c.name, cmd, &stdout, &stderr)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return status, lastLineOf(stderr.kept.Bytes(), stdout.kept.Bytes()), err
}

func (c checked) Dial(ctx context.Context, addr netip.AddrPort) (health.Conn, error) {
	conn, err := c.host.Guests.Dial(ctx, c.name, addr)
	if err != nil {
		return nil, err // not a nil *TCPConn, which would be a Conn
	}
	return conn, nil
}

func (c checked) Ready() error {
	switch said := c.host.Guests.Ready(c.name); {
	case said.Ready || !said.Started:
		return nil
	case said.Status != "":
		return fmt.Errorf("it has not come; the status of its init: %s", said.Status)
	}
	return errors.New("it has not come")
}

func (c checked) Alive() error {
	on, err := c.host.Guests.Running(c.name)
	if err != nil || on {
		return err
	}
	state, err := c.host.Guests.State(c.name)
	if err == nil && state.Ended != nil {
		return fmt.Errorf("it does not run any more: %s", state.Ended)
	}
	return errors.Join(guest.ErrNotRunning, err)
}
