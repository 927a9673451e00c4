package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// stepRecord is what came of a step, in machine formats.
type stepRecord struct {
	Host    string  `json:"host"`
	Step    string  `json:"step"`
	Name    string  `json:"name"`
	Why     string  `json:"why"`
	Outcome string  `json:"outcome"` // of the step: changed, unchanged, failed, skipped
	Took    float64 `json:"tookSeconds"`
	report.Result
}

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
			over := a.access.Rollout(a.forks, progress.watch)
			over.Diff = diff
			if !yes {
				over.Confirm = func(ctx context.Context, deletes []string) error { return a.confirmDeletes(ctx, progress, deletes) }
			}
			report := over.Apply(ctx, inv, hosts)
			progress.close()
			if report.Err != nil {
				return report.Err
			}
			return a.report(ctx, report, diff)
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

// fewDeletes is how many guests apply deletes without a question, for the
// inventory says so: more may be a group or a pattern that says more than was
// meant.
const fewDeletes = 10

func (a *app) confirmDeletes(ctx context.Context, p *progress, deletes []string) error {
	if len(deletes) <= fewDeletes {
		return nil
	}
	q := question{
		text: fmt.Sprintf("Delete %d guests (%s) with all that they hold, as the inventory says (state: absent)?", len(deletes), view.Clean(nodeset.Fold(deletes))),
		no:   "nothing was changed",
		mute: fmt.Sprintf("%d guests would be deleted with all that they hold (%s), and there is no terminal to ask", len(deletes), nodeset.Fold(deletes)),
		hint: "to delete them: --yes",
	}
	if p.view == nil {
		return a.ask(ctx, q)
	}
	return p.view.Around(func() error { return a.ask(ctx, q) })
}

// report prints what came of a run: data where it was asked for, then the
// recap.
func (a *app) report(ctx context.Context, report *rollout.Report, diff bool) error {
	var err error
	switch {
	case a.output != view.AsTable:
		err = a.printSteps(report)
	case diff:
		err = a.printPlans(report, true)
	}
	if err != nil {
		return err
	}
	a.sayForeign(report)
	if !a.quiet {
		for _, note := range report.Notes {
			say(view.Clean(note))
		}
		if nothing(report) {
			fmt.Fprintln(a.stderr, "nothing to change")
		}
		if err := view.Recap(a.stderr, results(report)); err != nil {
			return err
		}
	} else if err := view.Errors(a.stderr, results(report)); err != nil {
		return err
	}
	a.hint(results(report))
	return a.ended(ctx, outcomes(report)...)
}

// nothing says whether all hosts were found as they should be.
func nothing(report *rollout.Report) bool {
	for _, h := range report.Hosts {
		if h.Outcome != outcome.OK {
			return false
		}
	}
	return true
}

func (a *app) printSteps(rep *rollout.Report) error {
	var records []stepRecord
	for _, h := range rep.Hosts {
		for i, s := range h.Plan.Steps {
			r := stepRecord{Host: h.Host, Step: string(s.Kind), Name: s.Name, Why: s.Why}
			r.Status, r.Class = outcome.NotStarted, outcome.KindOf(h.Err)
			if i < len(h.Results) {
				result := h.Results[i]
				r.Outcome, r.Took = string(result.Outcome), view.Seconds(result.Took)
				r.Result = ofStep(result, h.Err)
			}
			records = append(records, r)
		}
		for _, r := range h.Plan.Refused {
			records = append(records, stepRecord{
				Host: h.Host, Name: r.Guest,
				Result: report.Result{Status: outcome.Failed, Class: outcome.KindRefused, Error: r.Err.Error()},
			})
		}
		if len(h.Plan.Steps)+len(h.Plan.Refused) == 0 {
			records = append(records, stepRecord{Host: h.Host, Result: ofHost(h)})
		}
	}
	return view.Write(a.stdout, a.output, records, func(io.Writer) error { return nil })
}

// ofStep is how a step came out, as a record says it.
func ofStep(r api.StepResult, host error) report.Result {
	result := report.Result{Status: outcome.NotStarted, Class: outcome.KindOf(host), Error: r.Error}
	switch r.Outcome {
	case api.Changed:
		result.Status, result.Class = outcome.Changed, ""
	case api.Unchanged:
		result.Status, result.Class = outcome.OK, ""
	case api.Failed:
		result.Status, result.Class = outcome.Failed, cmp.Or(outcome.KindOf(host), outcome.KindStep)
	}
	return result
}

// ofHost is how a host came out.
func ofHost(h rollout.HostReport) report.Result {
	result := report.Result{Status: h.Outcome, Class: outcome.KindOf(h.Err)}
	if err := errors.Join(h.Problems()...); err != nil {
		result.Error = err.Error()
	}
	return result
}
