package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) guestCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "guest",
		Short: "Manage guests",
		Long: `Guest commands act on the guests that match a pattern, on all their hosts at the
same time. A pattern is HOSTS/GUESTS, where HOSTS is a pattern as for --limit and
GUESTS a name, a set or a glob: lab1/www, web[8-11]/*, site=fra/mail. GUESTS alone
matches on all hosts. Name a guest that is not in the inventory with its host:
lab1/old.

The next apply restores what the inventory says.`,
		Example: `  vsfleet guest status
  vsfleet guest restart 'web*/www'
  vsfleet guest enter lab1/www
  vsfleet guest exec www -- nginx -s reload`,
	})

	short := map[plan.Action]string{
		plan.Start:   "Start guests that are stopped",
		plan.Stop:    "Stop guests that run",
		plan.Restart: "Stop and start guests",
		plan.Upgrade: "Upgrade the packages inside guests",
		plan.Revert:  "Put guests back to how they were before a run changed them",
		plan.Forget:  "Remove what hosts keep to revert guests",
		plan.Delete:  "Stop guests and remove their data",
	}
	for _, action := range plan.Actions() {
		cmd.AddCommand(a.actionCommand(action, short[action]))
	}
	cmd.AddCommand(a.guestStatusCommand(), a.limitsCommand(), a.generationsCommand(), a.hashifyCommand(), noData(a.enterCommand()), a.execCommand(), noData(a.logCommand()), noData(a.forwardCommand()), noData(a.copyCommand()), noData(a.backupCommand()), noData(a.restoreCommand()), noData(a.moveCommand()), noData(a.cloneCommand()))
	return cmd
}

func (a *app) actionCommand(action plan.Action, short string) *cobra.Command {
	verb := string(action)
	var yes bool
	var strategy *strategyFlags
	var to string
	cmd := &cobra.Command{
		Use:               verb + " PATTERN",
		Short:             short,
		Example:           fmt.Sprintf("  vsfleet guest %s lab1/www\n  vsfleet guest %s 'web*/*'", verb, verb),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			guests, err := a.guests(ctx, args[0])
			if err != nil {
				return err
			}
			if action == plan.Delete && !yes {
				if err := a.confirmDelete(ctx, guests); err != nil {
					return err
				}
			} else if !yes {
				if err := a.confirmAction(ctx, guests); err != nil {
					return err
				}
			}
			progress := a.progress(len(rollout.Hosts(guests)))
			over := a.access.Rollout(a.forks, progress.Watch)
			over.Generation = to
			if strategy != nil {
				if over.Strategy, err = strategy.of(a, rollout.Hosts(guests), progress); err != nil {
					progress.Close()
					return err
				}
			}
			run := over.Guests(ctx, action, guests)
			progress.Close()
			return a.report(ctx, run, false)
		},
	}
	a.changesGuests(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	if action != plan.Delete {
		strategy = a.strategy(cmd)
	}
	if action == plan.Upgrade {
		cmd.Long = `Upgrade upgrades the packages of running guests with their own package manager: apt, dnf
or apk. Configuration files that somebody changed are kept. Before that, each host keeps a
copy of all files that the guest has of its own; the guest is frozen meanwhile. If the upgrade fails,
or the guest is not healthy afterwards, the copy is put back and the guest restarted;
vsfleet guest revert does that later. The copy stays until the next upgrade, or until vsfleet
guest forget.

Processes that still use what was replaced: vsfleet stale.`
		cmd.Example = `  vsfleet guest upgrade 'web*/*' --canary web01
  vsfleet guest upgrade site=fra/* --serial 10%`
	}
	if action == plan.Revert {
		cmd.Long = `Revert puts guests back to how they were before a run changed them: the configuration
with image, limits and network, the files that runs have overwritten since, and
whether the guest ran. The next apply makes guests match the inventory again.`
		cmd.Flags().StringVar(&to, "to", "", "undo this `run` and all later ones (default: the newest; vsfleet guest generations lists them)")
	}
	return cmd
}

func (a *app) limitsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "limits [PATTERN]",
		Short: "Show what guests use of their limits",
		Long: `Limits shows what running guests use of each resource now and at most, their soft and
hard limits, and how often they were held there or refused. "-": no limit, or not counted
on this host.`,
		Example: `  vsfleet guest limits
  vsfleet guest limits lab1/www -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			hosts, wanted, err := a.chooseGuests(ctx, args)
			if err != nil {
				return err
			}
			counted, none := false, "no running guests"
			if len(args) > 0 {
				none = "" // which is an error
			}
			answers, err := ask(a, hosts, func(w fleet.Watch[api.Usage]) fleet.Answers[api.Usage] {
				return a.access.Usage(ctx, hosts, a.forks, w)
			}, func(h *inventory.Host, usage api.Usage, result report.Result) []report.UsageRecord {
				usage.Guests = slices.DeleteFunc(usage.Guests, func(g api.GuestUsage) bool { return !wanted(h.Name, g.Name) })
				counted = counted || len(usage.Guests) > 0
				return report.UsageRecords(h.Name, usage, result)
			}, listing[report.UsageRecord]{table: view.UsageTable, none: none})
			if err != nil {
				return err
			}
			if err := a.exit(ctx, fleet.Hosts(answers)); err != nil || counted || len(args) == 0 {
				return err
			}
			return usage("vsfleet guest status shows which guests there are, and which run")(
				fmt.Errorf("no guest of %q runs: nothing is counted", args[0]))
		},
	}
}

func (a *app) generationsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "generations [PATTERN]",
		Short: "Show what hosts keep to revert guests",
		Example: `  vsfleet guest generations
  vsfleet guest generations lab1/www -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			hosts, wanted, err := a.chooseGuests(ctx, args)
			if err != nil {
				return err
			}
			answers, err := ask(a, hosts, func(w fleet.Watch[api.Generations]) fleet.Answers[api.Generations] {
				return a.access.Generations(ctx, hosts, a.forks, w)
			}, func(h *inventory.Host, kept api.Generations, result report.Result) []report.GenerationRecord {
				kept.Kept = slices.DeleteFunc(kept.Kept, func(g api.Generation) bool { return !wanted(h.Name, g.Guest) })
				return report.GenerationRecords(h.Name, kept, result)
			}, listing[report.GenerationRecord]{table: view.GenerationTable, none: "nothing is kept to revert guests"})
			if err != nil {
				return err
			}
			return a.exit(ctx, fleet.Hosts(answers))
		},
	}
}

// confirmDelete asks before data is lost.
func (a *app) confirmDelete(ctx context.Context, guests []inventory.Instance) error {
	var names []string
	for _, g := range guests {
		names = append(names, g.Host.Name+"/"+g.Guest.Name)
	}
	all := view.Clean(nodeset.Fold(names))
	return a.confirm(ctx, question{
		text:       fmt.Sprintf("Delete %s, including all data?", all),
		no:         "nothing was deleted",
		noTerminal: all + " would be deleted, including all data, and there is no terminal to ask",
		hint:       "to delete: --yes",
	})
}

func (a *app) guestStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [PATTERN]",
		Short: "Show the state of guests",
		Long: `Status shows the guests that match a pattern. Without a pattern it shows all guests
on the hosts, including those that are not in the inventory.`,
		Example: `  vsfleet guest status
  vsfleet guest status 'web*/www' -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			hosts, wanted, err := a.chooseGuests(ctx, args)
			if err != nil {
				return err
			}
			return a.guestStatus(ctx, hosts, wanted)
		},
	}
}

// chooseGuests returns the hosts of the guests that a pattern names, and whether a guest
// is one of them. Without a pattern it is all guests.
func (a *app) chooseGuests(ctx context.Context, args []string) (hosts []*inventory.Host, wanted func(host, guest string) bool, err error) {
	if len(args) == 0 {
		if _, hosts, err = a.selectHosts(ctx); err != nil {
			return nil, nil, err
		}
		return hosts, func(host, guest string) bool { return true }, a.verify(ctx, hosts)
	}
	guests, err := a.selectGuests(ctx, args[0])
	if err != nil {
		return nil, nil, err
	}
	chosen := map[[2]string]bool{}
	for _, g := range guests {
		chosen[[2]string{g.Host.Name, g.Guest.Name}] = true
	}
	hosts = rollout.Hosts(guests)
	return hosts, func(host, guest string) bool { return chosen[[2]string{host, guest}] }, a.verify(ctx, hosts)
}

func (a *app) guestStatus(ctx context.Context, hosts []*inventory.Host, wanted func(host, guest string) bool) error {
	answers, err := ask(a, hosts, func(w fleet.Watch[api.State]) fleet.Answers[api.State] {
		return a.access.State(ctx, hosts, a.forks, w)
	}, func(h *inventory.Host, st api.State, result report.Result) []report.GuestRecord {
		st.Guests = slices.DeleteFunc(st.Guests, func(g api.GuestState) bool { return !wanted(h.Name, g.Name) })
		return report.GuestRecords(h.Name, st, result)
	}, listing[report.GuestRecord]{table: view.GuestTable, none: "no guests"})
	if err != nil {
		return err
	}
	return a.exit(ctx, fleet.Hosts(answers))
}

// insideFlags are the flags of how a program runs in a guest.
func insideFlags(cmd *cobra.Command) *fleet.Inside {
	var in fleet.Inside
	f := cmd.Flags()
	f.Func("as", "run as this `user` of the guest, by name or id (default root)", filled(&in.As))
	f.FuncP("workdir", "w", "start in this `directory` of the guest (default /)", filled(&in.Dir))
	f.StringArrayVarP(&in.Env, "env", "e", nil, "set an environment variable: `NAME=VALUE`; may be given several times")
	f.BoolVarP(&in.Terminal, "tty", "t", false, "give it a terminal of the guest's")
	f.BoolVarP(&in.NoTerminal, "no-tty", "T", false, "give it none")
	cmd.MarkFlagsMutuallyExclusive("tty", "no-tty")
	return &in
}

// filled refuses an empty argument: an empty variable of a script must not mean root.
func filled(to *string) func(string) error {
	return func(s string) error {
		if *to = s; s == "" {
			return errors.New("it is empty")
		}
		return nil
	}
}

func (a *app) enterCommand() *cobra.Command {
	var inside *fleet.Inside
	cmd := &cobra.Command{
		Use:   "enter GUEST",
		Short: "Open a shell in a guest",
		Long: `Enter runs a login shell as the guest's root on this terminal. The exit status is
that of the shell.`,
		Example:           `  vsfleet guest enter lab1/www`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			g, err := a.guest(ctx, args[0])
			if err != nil {
				return err
			}
			return a.enter(ctx, fleet.Command{Host: g.Host, Guest: g.Guest.Name, Inside: *inside})
		},
	}
	inside = insideFlags(cmd)
	return cmd
}

// enter gives this program's standard streams to a program in a guest.
func (a *app) enter(ctx context.Context, c fleet.Command) error {
	exit, err := a.access.Enter(ctx, c)
	if err != nil {
		return a.exit(ctx, []report.Host{report.HostOf(c.Place(), "", outcome.Of(err), err)})
	}
	if exit != 0 {
		return exitStatus(exit)
	}
	return nil
}

func (a *app) execCommand() *cobra.Command {
	var inside *fleet.Inside
	cmd := &cobra.Command{
		Use:   "exec [flags] PATTERN [--] COMMAND…",
		Short: "Run a command in guests",
		Long: `Exec runs a command inside each guest that matches the pattern. Output of a single
guest is shown as it arrives; equal output of several guests is shown once. The
command is not passed through a shell; use sh -c '…' for one.

With --tty, which is for a single guest, the command has a terminal, standard input is
passed on to it, and the exit status is that of the command.

Flags of vsfleet come before PATTERN. Write -- before a command whose own flags
include -l, -i or a long flag of vsfleet: without --, these are refused.`,
		Example: `  vsfleet guest exec lab1/www -- cat /etc/hostname
  vsfleet guest exec 'web*/www' -- nginx -t
  vsfleet guest exec --as postgres -t lab1/db -- psql`,
		Args:              commandWords(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			guests, err := a.guests(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			command := args[1:]
			if command[0] == "--" { // after PATTERN, cobra leaves it in place
				command = command[1:]
			}
			if len(command) == 0 {
				return usage("vsfleet guest enter gives a shell")(errors.New("no command is given"))
			}
			commands := fleet.CommandsIn(guests, command)
			for i := range commands {
				commands[i].Inside = *inside
			}
			if !inside.Terminal {
				return a.run(cmd, commands, a.access.Run)
			}
			if len(commands) > 1 {
				return usage("leave out --tty")(fmt.Errorf("--tty: %d guests cannot share a terminal", len(commands)))
			}
			return a.enter(cmd.Context(), commands[0])
		},
	}
	addRunFlags(cmd)
	inside = insideFlags(cmd)
	return cmd
}

func (a *app) logCommand() *cobra.Command {
	var lines int
	var follow bool
	cmd := &cobra.Command{
		Use:   "log GUEST",
		Short: "Show the console output of a guest",
		Example: `  vsfleet guest log lab1/www
  vsfleet guest log -n 100 --follow lab1/www`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := a.guest(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.stream(cmd.Context(), fleet.Command{Host: g.Host, Guest: g.Guest.Name}, nil,
				func(ctx context.Context, c fleet.Command, _ io.Reader, stdout, stderr io.Writer) (int, error) {
					return a.access.Log(ctx, c.Host, api.Log{Guest: c.Guest, Lines: lines, Follow: follow}, stdout, stderr)
				}, nil)
		},
	}
	cmd.Flags().IntVarP(&lines, "lines", "n", 20, "number of lines to show")
	cmd.Flags().BoolVar(&follow, "follow", false, "keep showing new output")
	return cmd
}
