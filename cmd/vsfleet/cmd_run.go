package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) runCommand() *cobra.Command {
	var guests string
	cmd := &cobra.Command{
		Use:   "run [flags] [--] COMMAND…",
		Short: "Run a command on hosts or in guests",
		Long: `Run runs a command on every host, or with --guests inside guests. Output of a single
host is shown as it arrives; equal output of several hosts is shown once.

A single argument is passed to the host's shell, as with ssh, so pipes and variables
work. Several arguments are a program and its arguments, passed unchanged.

Flags of vsfleet come before the command. Write -- before a command whose own flags
include -l, -i or a long flag of vsfleet: without --, these are refused.`,
		Example: `  vsfleet run -- uptime
  vsfleet run --live -- apt-get -y upgrade
  vsfleet run --diff -- cat /etc/ssh/sshd_config
  vsfleet run --stdin -- tee /etc/motd <motd
  vsfleet run --outdir logs -- journalctl -b
  vsfleet run -l 'site=fra' -- 'df -h / | tail -1'
  vsfleet run --guests 'web*/www' -- nginx -t`,
		Args: commandWords(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if cmd.Flags().Changed("guests") {
				chosen, err := a.guests(ctx, guests)
				if err != nil {
					return err
				}
				return a.run(cmd, fleet.CommandsIn(chosen, args), a.access.Run)
			}
			inv, hosts, err := a.hosts(ctx)
			if err == nil && cmd.ArgsLenAtDash() < 0 {
				err = hostsFirst(inv, args)
			}
			if err != nil {
				return err
			}
			return a.run(cmd, fleet.CommandsOn(hosts, args), a.access.Run)
		},
	}
	cmd.Flags().StringVar(&guests, "guests", "", "run inside guests matching this `pattern`: www, lab1/*, web*/www")
	must(cmd.RegisterFlagCompletionFunc("guests", a.completeGuests))
	addRunFlags(cmd)
	return cmd
}

// hostsFirst refuses a command whose first word names hosts, as ansible and clush have it: it
// would run on all hosts.
func hostsFirst(inv *inventory.Inventory, words []string) error {
	if _, err := inv.Select(words[0]); err != nil {
		return nil
	}
	rest := "COMMAND"
	if len(words) > 1 {
		rest = view.CommandLine(words[1:])
	}
	return usage("vsfleet run -l %s -- %s; to run a program of that name: vsfleet run -- %s", view.CommandLine(words[:1]), rest, view.CommandLine(words))(
		fmt.Errorf("%s names hosts, and stands where the command begins", words[0]))
}

// ownFlags passes flags after the first word of the command to the command: the -d in
// "run ls -d" belongs to ls.
func ownFlags(cmd *cobra.Command) {
	cmd.Flags().SetInterspersed(false)
	cmd.DisableFlagsInUseLine = true
}

// runFlags are the flags of commands that run something in many places.
type runFlags struct {
	live, diff bool
	outdir     string
}

func addRunFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Bool("live", false, "print each line as it comes, after the name of its place")
	f.BoolP("diff", "D", false, "print the output that most places have, and how the others differ from it")
	f.String("outdir", "", "write output to files in this `directory`: HOST or HOST/GUEST, and HOST.stderr")
	addStdinFlag(cmd)
	ownFlags(cmd)
}

func (a *app) runFlags(cmd *cobra.Command) (o runFlags, err error) {
	f := cmd.Flags()
	o.live, _ = f.GetBool("live")
	o.diff, _ = f.GetBool("diff")
	o.outdir, _ = f.GetString("outdir")
	switch {
	case o.live && o.diff, o.outdir != "" && (o.live || o.diff):
		err = errors.New("--live, --diff and --outdir cannot be used together")
	case (o.live || o.diff || o.outdir != "") && a.output != view.AsTable:
		err = fmt.Errorf("-o %s prints records: leave out --live, --diff and --outdir", a.output)
	case f.Changed("outdir") && o.outdir == "":
		err = errors.New("--outdir is empty: name a directory")
	}
	if err != nil {
		return o, &usageError{err: err}
	}
	return o, nil
}

// run runs a command in many places and shows its output, equal output once. Output of a
// single place is shown as it comes. Output of several is shown on a terminal as they
// end, and elsewhere when all have ended. The output of a command that is given up is
// shown as well.
func (a *app) run(cmd *cobra.Command, commands []fleet.Command, do fleet.Runner) error {
	ctx := cmd.Context()
	flags, err := a.runFlags(cmd)
	if err != nil {
		return err
	}
	record := a.access.Record(strings.TrimPrefix(cmd.CommandPath(), "vsfleet "), places(commands))
	defer record.End()
	if len(commands) == 1 && a.output == view.AsTable && flags.outdir == "" {
		return a.stream(ctx, commands[0], a.stdin(cmd), do, record)
	}
	if on, _ := cmd.Flags().GetBool("stdin"); on {
		input, err := fleet.ReadInput(ctx, os.Stdin)
		if err != nil {
			return err
		}
		defer input.Close()
		do = do.With(input)
	}
	progress := a.asking(len(commands))
	show := a.outputs(flags, progress, len(commands))
	if show.sink != nil {
		do = do.Into(show.sink)
	}
	var failed error
	results := fleet.Outputs(ctx, commands, fanout.Limits{Forks: a.forks, Timeout: a.access.Timeout}, do,
		follow(progress, fleet.Command.Place, &failed, func(i int, r fleet.Output) error {
			record.Ended(r)
			return show.ended(i, r.Value)
		}))
	progress.Close()
	if err := show.close(); err != nil || failed != nil {
		return errors.Join(failed, err)
	}
	hosts := fleet.Places(results)
	for i := range hosts {
		if flags.live || flags.outdir != "" { // nothing else names the exit status
			hosts[i].Error = results[i].Value.Error
		}
	}
	return a.exit(ctx, hosts)
}

// shown defines how the outputs of many places are shown.
type shown struct {
	sink  func(fleet.Command) (fleet.Sink, error) // takes them as they come; may be nil
	ended func(i int, r report.OutputRecord) error
	close func() error
}

func (a *app) outputs(flags runFlags, progress *view.Progress, places int) shown {
	records := view.NewRecords[report.OutputRecord](a.stdout, a.output, places)
	put := func(i int, r report.OutputRecord) error { return records.Put(i, r) }
	switch {
	case flags.outdir != "":
		return shown{fleet.Directory(flags.outdir), put, func() error { return nil }}
	case flags.live:
		return shown{a.lines(progress), put, func() error { return nil }}
	case flags.diff:
		return shown{nil, put, func() error {
			return records.Close(func(w io.Writer, all []report.OutputRecord) error { return view.OutputDiffs(a.stdout, w, all) })
		}}
	}
	outputs := view.NewOutputs(a.stdout, a.output, progress)
	return shown{nil, func(i int, r report.OutputRecord) error {
		outputs.Add(r)
		return records.Put(i, r)
	}, func() error {
		live, err := outputs.Close()
		if err != nil || live {
			return err
		}
		return records.Close(view.OutputTable)
	}}
}

// lines prints the lines of each place as they arrive.
func (a *app) lines(progress *view.Progress) func(fleet.Command) (fleet.Sink, error) {
	return func(c fleet.Command) (fleet.Sink, error) {
		out, errs := view.NewNamed(a.stdout, progress, c.Place()), view.NewNamed(a.stderr, progress, c.Place())
		return fleet.Sink{Out: out, Errs: errs, Close: func() error { return errors.Join(out.Close(), errs.Close()) }}, nil
	}
}

func places(commands []fleet.Command) []string {
	names := make([]string, len(commands))
	for i, c := range commands {
		names[i] = c.Place()
	}
	return names
}

// stream runs a command in one place, with the standard streams of this program. record
// may be nil.
func (a *app) stream(ctx context.Context, c fleet.Command, stdin io.Reader, do fleet.Runner, record *fleet.Recording) error {
	stdout := view.NewLines(a.stdout)
	stderr := view.NewLines(a.stderr)
	within, cancel := fanout.WithTimeout(ctx, a.access.Timeout)
	defer cancel()
	r := fleet.Streamed(within, c, do, stdin, stdout, stderr)
	stdout.Close()
	stderr.Close()
	if record != nil {
		record.Ended(r)
	}
	switch {
	case r.Err != nil:
		return a.exit(ctx, []report.Host{report.HostOf(c.Place(), "", r.Outcome, r.Err)})
	case *r.Value.Exit != 0:
		fmt.Fprintf(a.stderr, "%s: exit status %d\n", c.Place(), *r.Value.Exit)
		return a.exitStatus(ctx, []outcome.Outcome{outcome.Failed})
	}
	return nil
}
