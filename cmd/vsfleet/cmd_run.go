package main

import (
	"context"
	"fmt"
	"github.com/spf13/cobra"
	"io"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
)

func (a *app) runCommand() *cobra.Command {
	var guests string
	cmd := &cobra.Command{
		Use:   "run [flags] [--] COMMAND…",
		Short: "Run a command on hosts or in guests",
		Long: `Run runs a command on every host, or with --guests inside guests. Output of a single
host is shown as it arrives; equal output of several hosts is shown once.

A single argument is passed to the host's shell, as with ssh, so pipes and variables
work. Several arguments are a program and its arguments, passed unchanged.`,
		Example: `  vsfleet run -- uptime
  vsfleet run -l 'site=fra' -- 'df -h / | tail -1'
  vsfleet run --guests 'web*/www' -- nginx -t`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if cmd.Flags().Changed("guests") {
				chosen, err := a.guests(ctx, guests)
				if err != nil {
					return err
				}
				return a.run(cmd, fleet.CommandsIn(chosen, args), a.access.Run)
			}
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			return a.run(cmd, fleet.CommandsOn(hosts, args), a.access.Run)
		},
	}
	cmd.Flags().StringVar(&guests, "guests", "", "run inside guests matching this `pattern`: www, lab1/*, web*/www")
	must(cmd.RegisterFlagCompletionFunc("guests", a.completeGuests))
	addStdinFlag(cmd)
	ownFlags(cmd)
	return cmd
}

// ownFlags passes flags after the first word of the command to the command: the -l in
// "run ls -l" belongs to ls.
func ownFlags(cmd *cobra.Command) {
	cmd.Flags().SetInterspersed(false)
	cmd.DisableFlagsInUseLine = true
}

// run runs a command in many places and shows its output, equal output once. Output of a
// single place is shown as it comes. Output of several is shown on a terminal as they
// end, and elsewhere when all have ended. The output of a command that is given up is
// shown as well.
func (a *app) run(cmd *cobra.Command, commands []fleet.Command, do fleet.Runner) error {
	ctx := cmd.Context()
	if err := onlyOne(cmd, len(commands)); err != nil {
		return err
	}
	if len(commands) == 1 && a.output == view.AsTable {
		return a.stream(ctx, commands[0], a.stdin(cmd), do)
	}
	var failed error
	progress := a.asking(len(commands))
	records := view.NewRecords[report.OutputRecord](a.stdout, a.output, len(commands))
	outputs := view.NewOutputs(a.stdout, a.output, progress)
	results := fleet.Outputs(ctx, commands, fanout.Limits{Forks: a.forks, Timeout: a.access.Timeout}, do,
		follow(progress, fleet.Command.Place, &failed, func(i int, r fleet.Output) error {
			outputs.Add(r.Value)
			return records.Put(i, r.Value)
		}))
	progress.Close()
	shown, err := outputs.Close()
	if err == nil {
		err = failed
	}
	if err == nil {
		err = records.Close(func(w io.Writer, all []report.OutputRecord) error {
			if shown {
				return nil
			}
			return view.OutputTable(w, all)
		})
	}
	if err != nil {
		return err
	}
	return a.exit(ctx, fleet.Places(results))
}

// stream runs a command in one place, with the standard streams of this program.
func (a *app) stream(ctx context.Context, c fleet.Command, stdin io.Reader, do fleet.Runner) error {
	stdout := view.NewLines(a.stdout)
	stderr := view.NewLines(a.stderr)
	within, cancel := fanout.WithTimeout(ctx, a.access.Timeout)
	defer cancel()
	exit, err := do(within, c, stdin, stdout, stderr)
	err = fanout.TimeoutOr(within, err)
	stdout.Close()
	stderr.Close()
	switch {
	case err != nil:
		return a.exit(ctx, []report.Host{report.HostOf(c.Place(), "", outcome.Of(err), err)})
	case exit != 0:
		fmt.Fprintf(a.stderr, "%s: exit status %d\n", c.Place(), exit)
		return a.exitStatus(ctx, []outcome.Outcome{outcome.Failed})
	}
	return nil
}
