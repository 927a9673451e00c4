package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
)

func (a *app) forwardCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forward GUEST [ADDRESS:]PORT[:[ADDRESS:]PORT]…",
		Short: "Forward ports of this machine to services of a guest",
		Long: `Forward listens on ports of this machine and passes connections on to TCP services of a
guest, through the SSH connection to its host, until it is interrupted. No port is opened on
the host. Connections are made as by a program of the guest: 127.0.0.1, the default,
is the guest's localhost in every network mode.

The first port is on this machine, the second in the guest; the second defaults to the
first. Port 0 means any free port of this machine.`,
		Example: `  vsfleet guest forward lab1/www 8080:80
  vsfleet guest forward db1/pg 5432 9187
  vsfleet guest forward lab1/www 0.0.0.0:8080:80       for other machines, too
  vsfleet guest forward lab1/vpn 8443:10.8.0.1:443     another machine that the guest can reach`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			var forwards []fleet.Forward
			for _, arg := range args[1:] {
				f, err := fleet.ParseForward(arg)
				if err != nil {
					return &usageError{err: err}
				}
				forwards = append(forwards, f)
			}
			g, err := a.guest(ctx, args[0])
			if err != nil {
				return err
			}
			name := g.Host.Name + "/" + g.Guest.Name
			err = a.access.Forward(ctx, g.Host, g.Guest.Name, forwards,
				func(f fleet.Forward) {
					if !a.quiet {
						fmt.Fprintf(a.stderr, "forwarding %s to %s of %s\n", f.Listen, f.To, name)
					}
				},
				func(err error) { fmt.Fprintln(a.stderr, view.Clean(err.Error())) })
			return a.exit(ctx, []report.Host{report.HostOf(name, g.Host.Address, outcome.Of(err), err)})
		},
	}
}
