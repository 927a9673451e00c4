package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check whether hosts can run guests, and show what is missing",
		Long: `Check tests each host's kernel for the features that guests need, and looks for
obstacles on the host, such as an sshd that listens on all addresses. Hosts with
the same problem are listed together, with its consequence and the cure.

A host counts as failed if it lacks a feature that every guest needs.`,
		Example: `  vsfleet check
  vsfleet check -l db1 -o yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			answers, err := ask(a, hosts, func(w fleet.Watch[api.Check]) fleet.Answers[api.Check] {
				return a.access.Check(ctx, hosts, a.forks, w)
			}, func(h *inventory.Host, c api.Check, result report.Result) []report.CheckRecord {
				return report.CheckRecords(h.Name, c, result)
			}, listing[report.CheckRecord]{table: func(w io.Writer, records []report.CheckRecord) error {
				return view.CheckTable(a.stdout, w, records, len(hosts))
			}})
			if err != nil {
				return err
			}
			return a.exit(ctx, fleet.CheckedHosts(answers))
		},
	}
}
