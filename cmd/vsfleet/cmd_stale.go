package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) staleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stale [PATTERN]",
		Short: "Show guests that use what newer versions have replaced",
		Long: `Stale looks at guests from outside and lists those that need something:

  IMAGE      the guest has an older version of its image than the current one (vsfleet
             apply moves it), or was not restarted since it got another
  PROCESSES  processes that use programs or libraries whose files have been replaced since
             they started: restart them, or the guest
  PACKAGES   packages that the image has newer, because the guest has its own package
             database: vsfleet guest upgrade, or apt upgrade inside

Packages are those of dpkg, apk and rpm. Nothing is run in a guest. The exit status is 3 if
anything is stale.`,
		Example: `  vsfleet stale
  vsfleet stale 'web*/*' -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			hosts, wanted, err := a.chooseGuests(ctx, args)
			if err != nil {
				return err
			}
			stale := false
			answers, err := ask(a, hosts, func(w fleet.Watch[fleet.Stale]) fleet.Answers[fleet.Stale] {
				return a.access.Stale(ctx, a.loaded, hosts, a.forks, w)
			}, func(h *inventory.Host, s fleet.Stale, result report.Result) []report.StaleRecord {
				records := report.StaleRecords(h.Name, s.StaleAnswer, s.Wanted, a.versions.File(), func(guest string) bool { return wanted(h.Name, guest) }, result)
				stale = stale || slices.ContainsFunc(records, report.StaleRecord.Stale)
				return records
			}, listing[report.StaleRecord]{table: view.StaleTable})
			if err != nil {
				return err
			}
			if err := a.exit(ctx, fleet.Hosts(answers)); err != nil {
				return err
			}
			if stale {
				return exitStatus(exitDiffers)
			}
			if !a.quiet {
				fmt.Fprintln(a.stderr, "nothing is stale")
			}
			return nil
		},
	}
}
