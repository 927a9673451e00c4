package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

// planOptions are the flags of plan, and of apply --check.
type planOptions struct {
	detailed, diff, prune bool
	out                   string
}

func (a *app) planCommand() *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would change, and why",
		Long: `Plan compares the inventory with the state of the hosts and shows the steps that
would make them match, each with its reason. It changes nothing.

Guests that are on a host but not in the inventory are listed and left alone. To
delete one, set state: absent in the inventory; --prune deletes all of them.

--out saves the plan. vsfleet apply FILE carries out exactly that plan, or refuses if
the plan would differ by then.`,
		Example: `  vsfleet plan
  vsfleet plan -l web01 -o json
  vsfleet plan --diff                  also show the lines of files and settings that differ
  vsfleet plan --out monday.plan       save it for: vsfleet apply monday.plan
  vsfleet plan --detailed-exitcode     exit status 3: there is something to change`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			inv, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			return a.plan(ctx, inv, hosts, nil, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.detailed, "detailed-exitcode", false, "exit with status 3 if there is something to change")
	f.BoolVarP(&o.diff, "diff", "D", false, "show how files and settings of guests differ, except secret ones")
	f.BoolVar(&o.prune, "prune", false, "plan to delete guests that are not in the inventory")
	f.StringVar(&o.out, "out", "", "save the plan in this `file`")
	return cmd
}

// plan shows the plan of hosts. If it differs from the saved one, that is an error.
func (a *app) plan(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host, saved *report.Run, o planOptions) error {
	run, err := a.planned(ctx, inv, hosts, saved, o)
	if err != nil {
		return a.stale(err)
	}
	if err := view.Plan(a.stdout, a.output, run); err != nil {
		return err
	}
	if !a.quiet {
		view.Notes(a.stderr, run.Hosts)
	}
	if o.out != "" {
		if err := fleet.WritePlan(o.out, fleet.SavedPlan{Version: buildVersion(), Inventories: a.inventories, Prune: o.prune, Plan: run}); err != nil {
			return err
		}
		if !a.quiet {
			fmt.Fprintln(a.stderr, "saved; to carry it out: vsfleet apply", o.out)
		}
	}
	if err := a.exit(ctx, run.Hosts); err != nil {
		return err
	}
	if o.detailed && slices.Contains(run.Outcomes(), outcome.Changed) {
		return exitStatus(exitDiffers)
	}
	return nil
}

func (a *app) planned(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host, saved *report.Run, o planOptions) (report.Run, error) {
	progress := a.asking(len(hosts))
	defer progress.Close()
	over := a.access.Rollout(a.forks, progress.Watch)
	over.Diff, over.Prune, over.Saved = o.diff, o.prune, saved
	return over.Plan(ctx, inv, hosts)
}

func (a *app) driftCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drift",
		Short: "Show how hosts differ from the inventory",
		Long: `Drift compares the hosts with the inventory and shows each difference: guests that are
missing, stopped or not in the inventory, settings and files that differ, and what
somebody has removed from a running guest, such as an address. It changes nothing.

The exit status is 3 if any host differs. vsfleet apply removes the differences; only
apply --prune deletes guests that are not in the inventory.`,
		Example: `  vsfleet drift
  vsfleet drift -l web -o json
  vsfleet drift -q || mail -s drift admin`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			inv, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			run, err := a.planned(ctx, inv, hosts, nil, planOptions{})
			if err != nil {
				return err
			}
			if err := view.Drift(a.stdout, a.output, run); err != nil {
				return err
			}
			if err := a.exit(ctx, run.Hosts); err != nil {
				return err
			}
			if run.Drifted() {
				return exitStatus(exitDiffers)
			}
			return nil
		},
	}
}
