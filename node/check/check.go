package check

import (
	"context"
	"errors"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/probe"
)

// Run probes this host.
func Run(ctx context.Context) (api.Check, error) {
	return run(ctx, probe.Here(), netctx.Wildcards)
}

// run fills the table for a host.
func run(ctx context.Context, s *probe.System, find findListeners) (api.Check, error) {
	s.RemoveLeftovers()
	var c api.Check
	for _, a := range table(ctx, find) {
		if err := ctx.Err(); err != nil {
			return api.Check{}, err
		}
		c.Rows = append(c.Rows, a.Row(s.Ask(a)))
	}
	return c, nil
}

// Missing returns an error that names what every guest needs and the host lacks; nil if
// nothing is missing.
func Missing(c api.Check) error {
	var missing []string
	for _, r := range c.Rows {
		if !r.Required || r.Verdict != api.No {
			continue
		}
		missing = append(missing, (&probe.Error{Row: r}).Error())
	}
	if missing == nil {
		return nil
	}
	return errors.New("this host cannot run guests: " + strings.Join(missing, "; "))
}

// Status returns the exit status of `vsnode check`: 0 if guests can run here, 1 if
// something that every guest needs is missing, 2 if that is unknown.
func Status(c api.Check) int {
	status := 0
	for _, r := range c.Rows {
		switch {
		case !r.Required:
		case r.Verdict == api.No:
			return 1
		case r.Verdict == api.Unknown:
			status = 2
		}
	}
	return status
}
