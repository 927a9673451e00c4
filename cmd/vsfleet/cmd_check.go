package main

import (
	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say whether each host is able, and what is in the way",
		Long: `Check asks every host's kernel for what guests need, and the host for what gets
into their way (an sshd that listens on all addresses is the usual one). Hosts
that lack the same are named together, with what is lost and what to do.

A host that lacks what every guest needs counts as failed.`,
		Example: `  vsfleet check
  vsfleet check -l db1 -o yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			results := a.access.Check(ctx, hosts, a.forks)
			var checks []view.HostCheck
			statuses := fanout.Statuses(results)
			for i, r := range results {
				if r.Status != fanout.OK {
					continue
				}
				checks = append(checks, view.HostCheck{Host: r.Host.Name, Check: r.Value})
				if !able(r.Value) {
					statuses[i] = fanout.Failed
				}
			}
			if len(checks) > 0 || a.output != view.AsTable {
				if err := view.Check(a.stdout, a.output, checks); err != nil {
					return err
				}
			}
			return a.told(ctx, failures(results), statuses)
		},
	}
}

// able says whether guests can run at all.
func able(c api.Check) bool {
	for _, r := range c.Rows {
		if r.Required && r.Verdict == api.No {
			return false
		}
	}
	return true
}
