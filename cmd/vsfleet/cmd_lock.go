package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) lockCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "lock",
		Short: "Show and take locks of hosts",
		Long: `A run that changes a host locks it until the run ends. A person can lock hosts for
a time to keep runs off them.`,
		Example: `  vsfleet lock status
  vsfleet lock take db1 --for 2h --reason "new disks"
  vsfleet lock release db1`,
	})
	cmd.AddCommand(a.lockStatusCommand(), a.lockTakeCommand(), a.lockReleaseCommand())
	return cmd
}

// hostsNamed returns the hosts that the pattern in args names; without one, those of
// the inventory and -l.
func (a *app) hostsNamed(ctx context.Context, args []string) ([]*inventory.Host, error) {
	if len(args) > 0 {
		if a.limit != "" {
			return nil, usage("give the pattern once")(errors.New("there are two patterns: --limit, and the argument"))
		}
		a.limit = args[0]
	}
	_, hosts, err := a.hosts(ctx)
	var wrong *limitError
	if len(args) > 0 && errors.As(err, &wrong) {
		return nil, fmt.Errorf("PATTERN: %w", wrong.err)
	}
	return hosts, err
}

func (a *app) lockStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [PATTERN]",
		Short: "Show which runs and persons have hosts locked",
		Long: `Status shows for each host the run that is changing it, and the lock of a person.
HEARD is the time since the host last heard from the machine of the run. After five
minutes without a sign, the host undoes the run's steps and is free.`,
		Example:           "  vsfleet lock status\n  vsfleet lock status 'web*' -o json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeHosts,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			hosts, err := a.hostsNamed(ctx, args)
			if err != nil {
				return err
			}
			answers, err := ask(a, hosts, func(w fleet.Watch[api.Locks]) fleet.Answers[api.Locks] {
				return a.access.Locks(ctx, hosts, a.forks, w)
			}, func(h *inventory.Host, locks api.Locks, result report.Result) []report.LockRecord {
				return []report.LockRecord{{Host: h.Name, Locks: locks, Result: result}}
			}, listing[report.LockRecord]{table: view.LockTable})
			if err != nil {
				return err
			}
			return a.exit(ctx, fleet.Hosts(answers))
		},
	}
}

func (a *app) lockTakeCommand() *cobra.Command {
	var reason string
	var period time.Duration
	cmd := &cobra.Command{
		Use:   "take PATTERN",
		Short: "Keep all runs off hosts for a time",
		Long: `Take waits for runs that are changing the hosts, then locks the hosts until the lock
is released or its time is over. All runs are refused, including those of the person
who took the lock, and so is guest cp into guests of the hosts. The lock does not keep
off guest exec, guest enter and run, nor commands on the host itself (vserver). It
survives a reboot of the host. Guests run on.`,
		Example:           `  vsfleet lock take db1 --for 2h --reason "new disks"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeHosts,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if period <= 0 {
				return usage("as --for 2h")(errors.New("--for: want a time above 0"))
			}
			hosts, err := a.hostsNamed(ctx, args)
			if err != nil {
				return err
			}
			progress := a.progress(len(hosts))
			run := a.access.Rollout(a.forks, progress.Watch).Lock(ctx, hosts, reason, period)
			progress.Close()
			var records []report.TextRecord
			for _, h := range run.Hosts {
				records = append(records, report.TextRecord{Host: h.Name, Text: h.Text, Result: h.Result})
			}
			if err := a.printTexts(records); err != nil {
				return err
			}
			return a.exit(ctx, run.Hosts)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "maintenance", "reason of the lock, shown to runs that are refused")
	durationVar(cmd.Flags(), &period, "for", time.Hour, "time after which the lock ends by itself")
	a.lockWait(cmd)
	return cmd
}

func (a *app) lockReleaseCommand() *cobra.Command {
	var yes bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "release PATTERN",
		Short: "End the locks of hosts and the runs that are changing them",
		Long: `Release ends the lock of a person. It also ends a run that is changing the host: steps
under way finish or are undone. Use it for a run whose machine is gone; a run that is
only slow is cut short.`,
		Example:           "  vsfleet lock release db1",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeHosts,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			hosts, err := a.hostsNamed(ctx, args)
			if err != nil {
				return err
			}
			if !yes {
				if err := a.confirmRelease(ctx, hosts); err != nil {
					return err
				}
			}
			var records []report.TextRecord
			run := a.access.Release(ctx, hosts, wait, a.forks)
			for _, h := range run.Hosts {
				records = append(records, report.TextRecord{Host: h.Name, Text: h.Text, Result: h.Result})
			}
			if err := a.printTexts(records); err != nil {
				return err
			}
			return a.exit(ctx, run.Hosts)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	durationVar(cmd.Flags(), &wait, "wait", time.Minute, "time for runs that are ended to finish or undo their steps")
	return cmd
}

// confirmRelease asks before runs are ended.
func (a *app) confirmRelease(ctx context.Context, hosts []*inventory.Host) error {
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	all := view.Clean(nodeset.Fold(names))
	return a.confirm(ctx, question{
		text:       fmt.Sprintf("End the locks of %s, and the runs that are changing them?", all),
		no:         "nothing was ended",
		noTerminal: "locks of " + all + " would be ended, and there is no terminal to ask",
		hint:       "to end them: --yes",
	})
}
