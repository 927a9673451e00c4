package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/history"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
)

func (a *app) historyCommand() *cobra.Command {
	var q history.Query
	var since, host string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the runs that changed hosts",
		Long: `History lists the runs of commands that change hosts, newest first: who ran what and
when, on which hosts, and with what result. Runs that are under way are listed
as well; a run whose vsfleet was killed is listed as interrupted.

Runs are stored in $XDG_STATE_HOME/vsfleet/history (~/.local/state), or in the
PostgreSQL database of the setting store.`,
		Example: `  vsfleet history
  vsfleet history --since 7d --host 'web*' --failed
  vsfleet history -n 0 -o json                          all of them
  vsfleet history show last`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := sinceFlag(since, &q.Since); err != nil {
				return err
			}
			var err error
			if host != "" {
				if q.Host, err = history.HostPattern(host); err != nil {
					return &usageError{err: fmt.Errorf("--host: %w", err)}
				}
			}
			if q.Limit < 0 {
				return &usageError{err: fmt.Errorf("-n %d: it cannot be negative", q.Limit)}
			}
			return a.withHistory(cmd.Context(), func(ctx context.Context, h *history.History) error {
				list, err := h.List(ctx, q)
				if err != nil {
					return err
				}
				if len(list) == 0 {
					a.say("no runs")
				}
				return show(a, list, view.HistoryTable)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&since, "since", "", "only runs that began within this `time`: 7d, 2w, 36h")
	f.StringVar(&host, "host", "", "only runs on hosts of this `pattern`: web01, web*, web[01-03],db1")
	f.StringVar(&q.Verb, "verb", "", "only runs of this `command`: apply, run, play, guest, 'guest stop'")
	f.BoolVar(&q.Failed, "failed", false, "only runs that failed or were interrupted")
	f.IntVarP(&q.Limit, "runs", "n", 20, "`number` of runs to list (0: all)")
	cmd.AddCommand(a.historyShowCommand(), noData(a.historyRemoveCommand()))
	return cmd
}

// sinceFlag sets a time to the age that a flag gives, before now.
func sinceFlag(text string, to *time.Time) error {
	if text == "" {
		return nil
	}
	age, err := history.ParseAge(text)
	if err != nil {
		return &usageError{err: fmt.Errorf("--since: %w", err)}
	}
	*to = time.Now().Add(-age)
	return nil
}

// withHistory calls do with the history, or with the part of it that can be opened.
func (a *app) withHistory(ctx context.Context, do func(context.Context, *history.History) error) error {
	h := history.Open(ctx, a.history.Keeper)
	defer h.Close()
	if err := h.Failed(); err != nil {
		message("warning: " + view.Clean(err.Error()))
	}
	err := do(ctx, h)
	var unknown *history.UnknownError
	var refused *history.RerunError
	switch {
	case errors.As(err, &unknown):
		return usage("vsfleet history lists the runs")(err)
	case errors.As(err, &refused):
		return &usageError{err: err}
	}
	return err
}

func (a *app) historyShowCommand() *cobra.Command {
	var host string
	var output bool
	cmd := &cobra.Command{
		Use:   "show ID|last",
		Short: "Show what a run did",
		Long: `Show prints a run as it was printed when it ended: the steps with their reasons, notes,
and the errors and outcomes of the hosts. ID may be shortened to a prefix, or to the
part after the dash, if only one run matches.`,
		Example: `  vsfleet history show last
  vsfleet history show 3f0c2a91 --host web02
  vsfleet history show last --written`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withHistory(cmd.Context(), func(ctx context.Context, h *history.History) error {
				k, err := h.Load(ctx, args[0])
				if err != nil {
					return err
				}
				if host != "" {
					is, err := history.HostPattern(host)
					if err != nil {
						return &usageError{err: fmt.Errorf("--host: %w", err)}
					}
					if k = k.Host(is); len(k.Report.Hosts) == 0 {
						return &usageError{err: fmt.Errorf("--host %s: the run was not on such a host", host)}
					}
				}
				return view.Kept(a.stdout, a.output, k, output)
			})
		},
	}
	cmd.Flags().StringVar(&host, "host", "", "only hosts of this `pattern`")
	cmd.Flags().BoolVar(&output, "written", false, "print the output of the commands instead")
	return cmd
}

func (a *app) historyRemoveCommand() *cobra.Command {
	var before string
	cmd := &cobra.Command{
		Use:   "rm [ID…]",
		Short: "Remove runs from the history",
		Long: `Rm removes runs permanently. The setting keep removes old runs automatically: keep: 90d, or
keep: 500 for a number of runs.`,
		Example: `  vsfleet history rm 3f0c2a91
  vsfleet history rm --before 90d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (before == "") == (len(args) == 0) {
				return &usageError{err: errors.New("no run is named: give IDs, or --before")}
			}
			return a.withHistory(cmd.Context(), func(ctx context.Context, h *history.History) error {
				var ids []string
				for _, name := range args {
					id, err := h.Find(ctx, name)
					if err != nil {
						return err
					}
					ids = append(ids, id)
				}
				if before != "" {
					age, err := history.ParseAge(before)
					if err != nil {
						return &usageError{err: fmt.Errorf("--before: %w", err)}
					}
					if ids, err = h.Before(ctx, time.Now().Add(-age)); err != nil {
						return err
					}
				}
				n, err := h.Remove(ctx, ids)
				if err == nil && !a.quiet {
					fmt.Fprintf(a.stderr, "removed %d\n", n)
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&before, "before", "", "all runs older than this `time`: 90d, 2w")
	return cmd
}

func (a *app) rerunCommand() *cobra.Command {
	var which history.Which
	cmd := &cobra.Command{
		Use:   "rerun ID|last",
		Short: "Run a command of the history again",
		Long: `Rerun repeats the command of an earlier run with the same flags, in the same directory,
on some of its hosts. --failed selects the hosts that failed or whose outcome is
unknown, --unreached those that could not be reached or were not begun. It asks for
confirmation as the command itself does. -l limits these hosts further, and -o sets the
format of the output; other flags of the command cannot be changed.

A command line with a secret cannot be repeated: the secret was not recorded.`,
		Example: `  vsfleet rerun last --failed
  vsfleet rerun 3f0c2a91 --failed --unreached
  vsfleet rerun last --all -l web01 -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if which == (history.Which{}) {
				return &usageError{err: errors.New("no hosts are selected: give --failed, --unreached or --all")}
			}
			over, err := a.rerunFlags(cmd)
			if err != nil {
				return err
			}
			var again history.Again
			err = a.withHistory(cmd.Context(), func(ctx context.Context, h *history.History) error {
				k, err := h.Load(ctx, args[0])
				if err == nil {
					again, err = history.Rerun(k, which)
				}
				return err
			})
			if err != nil {
				return err
			}
			return a.rerun(cmd.Context(), again, over)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&which.Failed, "failed", false, "on hosts that failed, or whose outcome is unknown")
	f.BoolVar(&which.Unreached, "unreached", false, "on hosts that could not be reached, or were not begun")
	f.BoolVar(&which.All, "all", false, "on all hosts of the run")
	return cmd
}

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events [ID|last]",
		Short: "Print the events of runs",
		Long: `Events prints the events of a run, one JSON object per line: its start with the hosts,
their plans, the start and end of each step, the result of each host, and its end.
Without ID, it prints the events of all runs under way, or else of the last run.

With --follow it goes on to print the events of all runs of this user on this machine,
until it is interrupted.`,
		Example: `  vsfleet events
  vsfleet events --follow | jq -c 'select(.kind == "done")'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withHistory(cmd.Context(), func(ctx context.Context, h *history.History) error {
				name := ""
				if len(args) > 0 {
					name = args[0]
				}
				return h.Events(ctx, name, follow, func(e report.Event) error {
					return view.Write(a.stdout, view.AsNDJSON, []report.Event{e}, nil)
				})
			})
		},
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "keep printing new events")
	return noData(cmd)
}
