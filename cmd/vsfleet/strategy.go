package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
)

// strategyFlags are the flags of commands that change hosts in batches.
type strategyFlags struct {
	cmd  *cobra.Command
	opts fleet.StrategyOptions
	ask  bool
}

// strategy adds the flags to a command.
func (a *app) strategy(cmd *cobra.Command) *strategyFlags {
	s := &strategyFlags{cmd: cmd}
	f := cmd.Flags()
	f.StringVar(&s.opts.Serial, "serial", "", "work in batches of these `sizes`, the last one repeating: 5, 1,10%,100%")
	f.StringVar(&s.opts.Canary, "canary", "", "change the hosts of this `pattern` first; on a terminal, then ask")
	durationVar(f, &s.opts.Pause, "pause", 0, "time between batches")
	f.BoolVar(&s.ask, "ask", false, "ask before each further batch")
	f.StringVar(&s.opts.MaxFail, "max-fail", "", "stop when more than this `number` or percentage of hosts have failed")
	f.StringVar(&s.opts.OnFailure, "on-failure", "", "what to do with a guest whose change fails: revert or keep")
	f.IntVar(&s.opts.Retries, "retries", 0, "how many times to retry hosts that are lost or cannot be reached")
	f.BoolVar(&s.opts.RetrySteps, "retry-steps", false, "with --retries: try hosts again whose steps failed or whose guests were not healthy, too")
	f.StringArrayVar(&s.opts.Budget, "budget", nil, "disrupt at most this many hosts with the same value of a label at a time: site=1, rack=10%")
	durationVar(f, &s.opts.HostTimeout, "host-timeout", 0, "time for the changes of one host (0: no limit)")
	must(cmd.RegisterFlagCompletionFunc("canary", a.completeHosts))
	must(cmd.RegisterFlagCompletionFunc("on-failure", cobra.FixedCompletions([]string{"revert", "keep"}, cobra.ShellCompDirectiveNoFileComp)))
	return s
}

// of returns the strategy of the flags, and of the inventory where no flag says
// otherwise, for a run over hosts. A question is shown above the line of the progress.
func (s *strategyFlags) of(a *app, hosts []*inventory.Host, p *view.Progress) (rollout.Strategy, error) {
	s.opts.Given, s.opts.Hosts = s.cmd.Flags().Changed, hosts
	strategy, err := fleet.Strategy(a.loaded, s.opts)
	if err != nil {
		return strategy, usage("vsfleet %s --help", s.cmd.Name())(err)
	}
	terminal := term.IsTerminal(int(os.Stdin.Fd())) && a.stderr.Terminal
	if s.ask && !terminal {
		return strategy, usage("to go on by itself after a while: --pause 30s")(errors.New("--ask: there is no terminal to ask"))
	}
	yes, _ := s.cmd.Flags().GetBool("yes") // an error: it has no such flag
	if s.ask || terminal && strategy.Canary != nil && !yes {
		asked := false // after the canary, or instead of it
		strategy.Ask = func(ctx context.Context, next report.Batch) error {
			if !s.ask && asked {
				return nil
			}
			asked = true
			return p.Around(func() error {
				return a.confirm(ctx, question{
					text: fmt.Sprintf("Go on with %s (%s)?", next, view.Clean(nodeset.Fold(next.Hosts))),
					no:   fmt.Sprintf("you did not want %s", next),
				})
			})
		}
	}
	return strategy, nil
}
