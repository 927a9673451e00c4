package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) applyCommand() *cobra.Command {
	var o planOptions
	var check, yes bool
	var strategy *strategyFlags
	cmd := &cobra.Command{
		Use:   "apply [PLAN]",
		Short: "Create, change, start and stop guests to match the inventory",
		Long: `Apply carries out the plan that vsfleet plan shows: it builds images and creates,
configures, starts, stops and deletes guests. Each image is built on one host and
copied to the others. A failure on one host, or for one guest, does not stop the
rest. Apply asks for confirmation before it deletes many guests, or changes many hosts
or protected hosts.

With --serial or --canary, apply works in batches. A failure then stops the run
before it begins more hosts, unless --max-fail allows some. See docs/rollouts.md.

PLAN is a file written by vsfleet plan --out. Apply carries out exactly that plan.
If hosts or the inventory have changed so that the plan would differ now, apply
shows the difference and changes nothing.

After the first Ctrl-C no further hosts are started, and steps under way finish or
are undone. Run the same command again to complete the rest.`,
		Example: `  vsfleet apply
  vsfleet apply -l web01              one host only
  vsfleet apply --serial 1,10%,100%   one host, a tenth of them, the rest
  vsfleet apply --canary web01        one host first, then ask
  vsfleet apply monday.plan           the plan saved by vsfleet plan --out monday.plan
  vsfleet apply -C                    only show what would change, as vsfleet plan
  vsfleet apply -D                    also show what changed, and why`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			inv, hosts, saved, err := a.toApply(ctx, args, &o)
			if err != nil {
				return err
			}
			if check {
				return a.plan(ctx, inv, hosts, saved, o)
			}
			progress := a.progress(len(hosts))
			over := a.access.Rollout(a.forks, progress.Watch)
			if over.Strategy, err = strategy.of(a, hosts, progress); err != nil {
				progress.Close()
				return err
			}
			over.Diff, over.Prune, over.Saved = o.diff, o.prune, saved
			if !yes {
				over.Confirm = func(ctx context.Context, c rollout.Changes) error {
					return progress.Around(func() error { return a.confirmChanges(ctx, inv, c, o.prune) })
				}
			}
			run, err := over.Apply(ctx, inv, hosts)
			progress.Close()
			if err != nil {
				return a.stale(err)
			}
			return a.report(ctx, run, o.diff)
		},
	}
	f := cmd.Flags()
	checkFlag(f, &check, "show what would change, and change nothing")
	f.BoolVarP(&o.diff, "diff", "D", false, "show what was changed and why, with the lines of files and settings")
	f.BoolVar(&o.prune, "prune", false, "delete guests that are not in the inventory, after confirmation")
	f.BoolVarP(&yes, "yes", "y", false, fmt.Sprintf("do not ask before changing protected or many hosts, deleting more than %d guests, or pruning", fewDeletes))
	a.changesGuests(cmd)
	strategy = a.strategy(cmd)
	return cmd
}

// toApply returns the hosts of an apply: those of the saved plan that args name, or else
// those of the inventory and -l.
func (a *app) toApply(ctx context.Context, args []string, o *planOptions) (*inventory.Inventory, []*inventory.Host, *report.Run, error) {
	if len(args) == 0 {
		inv, hosts, err := a.hosts(ctx)
		return inv, hosts, nil, err
	}
	switch {
	case a.limit != "":
		return nil, nil, nil, &usageError{err: fmt.Errorf("--limit %s: a saved plan is carried out on all of its hosts: plan again with --limit", a.limit)}
	case a.only != nil:
		return nil, nil, nil, &usageError{err: errors.New("a saved plan is carried out on all of its hosts: plan again")}
	case o.prune:
		return nil, nil, nil, &usageError{err: errors.New("--prune: a saved plan is carried out as it is: plan again with --prune")}
	}
	saved, err := fleet.ReadPlan(args[0], buildVersion())
	if err != nil {
		return nil, nil, nil, &usageError{err: err}
	}
	o.prune = saved.Prune
	if len(a.inventories) == 0 {
		a.inventories = saved.Inventories
	}
	inv, err := a.inventory(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	hosts, err := saved.Hosts(inv)
	if err != nil {
		return nil, nil, nil, &usageError{err: err}
	}
	return inv, hosts, &saved.Plan, a.verify(ctx, hosts)
}

// stale shows how a saved plan differs from what would be done now, if that is the error.
func (a *app) stale(err error) error {
	var stale *report.StaleError
	if !errors.As(err, &stale) {
		return err
	}
	if err := view.Stale(a.stderr, stale.Hosts); err != nil {
		return err
	}
	message(stale.Error())
	fmt.Fprintln(a.stderr, "hint:", stale.Hint())
	return exitStatus(outcome.ExitFailed)
}

// report prints what came of a run: data if it was asked for, then the recap.
func (a *app) report(ctx context.Context, run report.Run, diff bool) error {
	var err error
	switch {
	case a.output != view.AsTable:
		err = view.Write(a.stdout, a.output, report.StepRecords(run), nil)
	case diff:
		err = view.Plan(a.stdout, a.output, run)
	}
	if err != nil {
		return err
	}
	return a.recap(ctx, run)
}

// recap prints the end of a run that changes hosts.
func (a *app) recap(ctx context.Context, run report.Run) error {
	return a.recapOr(ctx, run, "nothing to change")
}

// recapOr prints the end of a run; unchanged, if it is not empty, is said where no host was changed.
func (a *app) recapOr(ctx context.Context, run report.Run, unchanged string) error {
	if a.quiet {
		if err := view.Errors(a.stderr, run.Hosts); err != nil {
			return err
		}
	} else {
		view.Notes(a.stderr, run.Hosts)
		for _, note := range run.Notes {
			message(view.Clean(note))
		}
		if unchanged != "" && outcome.Worst(run.Outcomes()...) == outcome.OK {
			fmt.Fprintln(a.stderr, unchanged)
		}
		if err := view.RecapRun(a.stderr, run); err != nil {
			return err
		}
	}
	view.Hints(a.stderr, run.Hosts)
	return a.exitStatus(ctx, run.Outcomes())
}
