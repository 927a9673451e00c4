package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/view"
)

func (a *app) installCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install",
		Short: "Put vserver and vserver-stat onto the hosts' PATH",
		Long: `Install copies vsnode to /usr/local/sbin of every host, with the names of
Linux-VServer's commands beside it, for whoever works on a host itself. vsfleet
does not need it: it keeps its own vsnode in /var/lib/vsnode.`,
		Example: `  vsfleet install
  ssh web01 vserver www status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			results := fleet.Ask(ctx, &a.access, hosts, a.forks, func(ctx context.Context, n *fleet.Node) (string, error) {
				return fleet.Hear(ctx, n, "install")
			}, fleet.Watch[string]{})
			for _, r := range results {
				if r.Status == fanout.OK && !a.quiet {
					fmt.Fprintf(a.stderr, "%s: %s\n", view.Clean(r.Host.Name), view.Clean(r.Value))
				}
			}
			return a.told(ctx, failures(results), fanout.Statuses(results))
		},
	}
}
