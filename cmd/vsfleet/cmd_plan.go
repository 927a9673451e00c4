package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/outcome"
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
	over := a.access.Rollout(a.forks, progress.Watch)
	over.Diff = diff
	run := over.Plan(ctx, inv, hosts)
	progress.Close()
	if err := view.Plan(a.stdout, a.output, run); err != nil {
		return err
	}
	if !a.quiet {
		view.Notes(a.stderr, run.Hosts)
	}
	if err := a.exit(ctx, run.Hosts); err != nil {
		return err
	}
	if detailed && slices.Contains(run.Outcomes(), outcome.Changed) {
		return exitStatus(exitDiffers)
	}
	return nil
}
