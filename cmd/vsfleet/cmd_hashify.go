package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) hashifyCommand() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "hashify [PATTERN]",
		Short: "Keep files once that several guests have, or an image",
		Long: `Hashify finds files of guests' own whose content an image of the host has too, or
another guest there, and keeps it once, whatever their owners, modes and times. Guests see
no change. A guest that runs gives up its copies when it is started again.

BYTES is what the files took in the guest, NEW what was made for them that guests share. The
exit status is 2 if a guest was left as it is; with --check nothing is changed.`,
		Example: `  vsfleet guest hashify --check
  vsfleet guest hashify 'web*/*' -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			hosts, wanted, err := a.chooseGuests(ctx, args)
			if err != nil {
				return err
			}
			left := false
			answers, err := ask(a, hosts, func(w fleet.Watch[api.Hashified]) fleet.Answers[api.Hashified] {
				return a.access.Hashify(ctx, hosts, wanted, dry, a.forks, w)
			}, func(h *inventory.Host, done api.Hashified, result report.Result) []report.HashifiedRecord {
				left = left || slices.ContainsFunc(done.Guests, func(g api.HashifiedGuest) bool { return g.Problem != "" })
				return report.HashifiedRecords(h.Name, done, result)
			}, listing[report.HashifiedRecord]{table: view.HashifiedTable, none: "no guests"})
			if err != nil {
				return err
			}
			if err := a.exit(ctx, fleet.Hosts(answers)); err != nil {
				return err
			}
			if left {
				return exitStatus(outcome.ExitFailed)
			}
			return nil
		},
	}
	checkFlag(cmd.Flags(), &dry, "only show what would be won")
	return cmd
}
