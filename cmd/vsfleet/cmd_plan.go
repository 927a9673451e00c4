package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
)

func (a *app) planCommand() *cobra.Command {
	var detailed, diff bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would change, and why",
		Long: `Plan compares the inventory with the state of the hosts and shows the steps that
would make them match, each with its reason. It changes nothing.

Guests that are on a host but not in the inventory are listed and left alone. To
delete one, set state: absent in the inventory.`,
		Example: `  vsfleet plan
  vsfleet plan -l web01 -o json
  vsfleet plan --diff                  with what files of guests hold, line by line
  vsfleet plan --detailed-exitcode     exit status 3: there is something to change`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.plan(cmd.Context(), detailed, diff) },
	}
	cmd.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with status 3 if there is something to change")
	cmd.Flags().BoolVarP(&diff, "diff", "D", false, "show how files of guests differ, except secret ones")
	return cmd
}

func (a *app) plan(ctx context.Context, detailed, diff bool) error {
	inv, hosts, err := a.hosts(ctx)
	if err != nil {
		return err
	}
	progress := a.asking(len(hosts))
	over := a.access.Rollout(a.forks, answers(progress))
	over.Diff = diff
	report := over.Plan(ctx, inv, hosts)
	progress.Close()
	if err := a.printPlans(report, diff); err != nil {
		return err
	}
	a.sayForeign(report)
	var problems []view.Result
	for _, r := range results(report) {
		if r.Err != nil || r.Outcome == outcome.NotStarted {
			problems = append(problems, r)
		}
	}
	if err := a.told(ctx, problems, outcomes(report)); err != nil {
		return err
	}
	for _, h := range report.Hosts {
		if detailed && h.Outcome == outcome.Changed {
			return exitStatus(exitDiffers)
		}
	}
	return nil
}

func (a *app) printPlans(report *rollout.Report, diff bool) error {
	var plans []view.HostPlan
	for _, h := range report.Hosts {
		p := view.HostPlan{Host: h.Host, Steps: h.Plan.Steps, Err: h.Err, Result: ofHost(h)}
		for _, r := range h.Plan.Refused {
			p.Refused = append(p.Refused, view.RefusedGuest{Name: r.Guest, Error: r.Err.Error()})
		}
		if diff {
			p.Diffs = make([]string, len(p.Steps))
			for i, s := range p.Steps {
				p.Diffs[i] = view.Diff(s.Files, h.FileStates(s))
			}
		}
		if p.Err == nil && h.Outcome == outcome.NotStarted {
			p.Err = outcome.ErrInterrupted
		}
		if len(h.Plan.Steps) == 0 && p.Err == nil {
			// Not "as it should be" if its only changes were refused.
			p.Err = errors.Join(h.Problems()...)
		}
		plans = append(plans, p)
	}
	return view.Plan(a.stdout, a.output, plans, report.Notes)
}
