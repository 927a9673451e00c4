package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

func (a *app) applyCommand() *cobra.Command {
	var check, diff, yes bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Create, change, start and stop guests to match the inventory",
		Long: `Apply carries out the plan that vsfleet plan shows: it builds images and creates,
configures, starts, stops and deletes guests. Each image is built on one host and
copied to the others. A failure on one host, or for one guest, does not stop the
rest. Apply asks for confirmation before it deletes many guests.

After the first Ctrl-C no further hosts are started, and steps under way finish or
are undone. Run the same command again to complete the rest.`,
		Example: `  vsfleet apply
  vsfleet apply -l web01              one host first
  vsfleet apply -C                    only say what would change, as vsfleet plan
  vsfleet apply -D                    also print what was changed, and why`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if check {
				return a.plan(ctx, false, diff)
			}
			inv, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			progress := a.progress(len(hosts))
			over := a.access.Rollout(a.forks, progress.Watch)
			over.Diff = diff
			if !yes {
				over.Confirm = func(ctx context.Context, deletes []string) error { return a.confirmDeletes(ctx, progress, deletes) }
			}
			run, err := over.Apply(ctx, inv, hosts)
			progress.Close()
			if err != nil {
				return err
			}
			return a.report(ctx, run, diff)
		},
	}
	cmd.Flags().BoolVarP(&check, "check", "C", false, "show what would change, and change nothing")
	cmd.Flags().BoolVar(&check, "dry-run", false, "alias of --check")
	cmd.Flags().BoolVarP(&diff, "diff", "D", false, "show what was changed and why, with the lines of files")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, fmt.Sprintf("do not ask before deleting more than %d guests", fewDeletes))
	must(cmd.Flags().MarkHidden("dry-run"))
	a.lockWait(cmd)
	return cmd
}

// fewDeletes is how many guests apply deletes without asking, as the inventory wants
// it. More may come from a group or a pattern that covers more than was meant.
const fewDeletes = 10

func (a *app) confirmDeletes(ctx context.Context, p *view.Progress, deletes []string) error {
	if len(deletes) <= fewDeletes {
		return nil
	}
	q := question{
		text:       fmt.Sprintf("Delete %d guests (%s) with all that they hold, as the inventory says (state: absent)?", len(deletes), view.Clean(nodeset.Fold(deletes))),
		no:         "nothing was changed",
		noTerminal: fmt.Sprintf("%d guests would be deleted with all that they hold (%s), and there is no terminal to ask", len(deletes), nodeset.Fold(deletes)),
		hint:       "to delete them: --yes",
	}
	return p.Around(func() error { return a.confirm(ctx, q) })
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
	if a.quiet {
		if err := view.Errors(a.stderr, run.Hosts); err != nil {
			return err
		}
	} else {
		view.Notes(a.stderr, run.Hosts)
		for _, note := range run.Notes {
			message(view.Clean(note))
		}
		if outcome.Worst(run.Outcomes()...) == outcome.OK {
			fmt.Fprintln(a.stderr, "nothing to change")
		}
		if err := view.Recap(a.stderr, run.Hosts); err != nil {
			return err
		}
	}
	view.Hints(a.stderr, run.Hosts)
	return a.exitStatus(ctx, run.Outcomes())
}
