// Command vsfleet runs guests on a fleet of hosts, as described by an inventory. It is
// the controller. Flags, help and exit statuses are here; the work is done by package
// fleet and below.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/editor"
	"github.com/vsfleet/vsfleet/lab"
)

// version is set by the linker.
var version = ""

func main() {
	if len(os.Args) > 1 && os.Args[1] == lab.InitCommand {
		os.Exit(lab.InitMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == editor.SweepCommand {
		os.Exit(editor.SweepMain(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	cobra.EnableCommandSorting = false // keep them in the order in which they are needed
	a := &app{}
	ctx, stop := a.interruptible()
	defer stop()
	return a.execute(ctx, args)
}

// execute runs a command line, and keeps it in the history if it changed something.
func (a *app) execute(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	if cmd, _, err := root.Find(args); err == nil {
		a.typed = cmd.CommandPath()
	}
	a.record(ctx, args)
	err := root.ExecuteContext(ctx)
	code := a.exitCode(ctx, err)
	a.recorded(ctx, code, err)
	return code
}

// lastReport is how long a command may take to report after its connections were cut.
const lastReport = 3 * time.Second

// interruptible returns a context that ends at the first Ctrl-C (or TERM, or HUP): no
// further hosts are started, and steps under way finish or are undone. The second
// signal cuts all connections; hosts notice and undo by themselves, and the command
// reports what it knows by then. The third one ends the program.
func (a *app) interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	abort, cut := context.WithCancel(context.Background())
	a.access.Abort = abort
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		if view.Open(os.Stderr, true).Terminal {
			fmt.Fprintln(os.Stderr) // after ^C or the status line
		}
		message("interrupted: ending what is under way; interrupt again to close all connections")
		cancel(outcome.ErrInterrupted)
		if _, ok := <-signals; !ok {
			return
		}
		cut()
		select {
		case _, ok := <-signals:
			if !ok {
				return
			}
		case <-time.After(lastReport):
		}
		os.Exit(outcome.ExitInterrupted)
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
		cut()
	}
}

const rootLong = `vsfleet runs many small Linux systems (guests) on many hosts. The inventory file
describes what should exist; vsfleet connects to the hosts over SSH and makes
them match. Hosts need nothing but an SSH server.

To try it without hosts, create practice hosts on this machine: vsfleet lab up`

const rootExample = `  vsfleet lab up                          three practice hosts on this machine
  vsfleet plan                            what would change, and why
  vsfleet apply                           change it
  vsfleet stat                            what all guests use
  vsfleet guest enter lab1/www            a shell in a guest`

// root returns the root command with all its commands.
func (a *app) root() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "vsfleet",
		Short:             "Run guests on a fleet of hosts",
		Long:              rootLong,
		Example:           rootExample,
		Version:           buildVersion(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
	}
	cmd.SetFlagErrorFunc(flagError)
	a.register(cmd)
	cmd.AddCommand(
		a.labCommand(), a.inventoryCommand(),
		a.trustCommand(), a.pingCommand(), a.checkCommand(), a.planCommand(), a.applyCommand(), a.playCommand(), a.driftCommand(), a.staleCommand(),
		a.guestCommand(), a.runCommand(), a.imageCommand(), a.volumeCommand(), a.lockCommand(), a.statCommand(), a.installCommand(),
		a.historyCommand(), a.rerunCommand(), a.eventsCommand(),
		noData(a.initCommand()), a.configCommand(),
		noData(a.versionCommand()), a.docsCommand(),
	)
	refuseWords(cmd)
	explainArgs(cmd)
	return cmd
}

// buildVersion returns the version that the linker set, or that of the module.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

// group makes a command one that only has subcommands: an unknown word is an error.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.stdout, "vsfleet %s %s/%s %s\n", buildVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
