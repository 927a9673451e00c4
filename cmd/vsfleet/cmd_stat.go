package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) statCommand() *cobra.Command {
	var by, sort string
	cmd := &cobra.Command{
		Use:   "stat",
		Short: "Show resource usage of hosts and guests",
		Long: `Stat shows the table of vserver-stat for the whole fleet, with the host of each guest
and totals. Context 0 is the host itself.`,
		Example: `  vsfleet stat
  vsfleet stat --sort rss
  vsfleet stat --by guest              one row for the guests of a name
  vsfleet stat --by site -o csv        one row for each value of the label site`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			inv, hosts, err := a.selectHosts(ctx)
			if err != nil {
				return err
			}
			options := view.StatOptions{Sort: sort}
			if by != "" {
				if options.By, err = grouping(inv, by); err != nil {
					return err
				}
			}
			if err := view.Stat(view.Plain(discard{}), view.AsTable, nil, options); err != nil {
				return &usageError{err: err} // an unknown column, before hosts are asked
			}
			if err := a.verify(ctx, hosts); err != nil {
				return err
			}
			ndjson := a.output == view.AsNDJSON
			answers, err := a.stat(ctx, hosts, options, ndjson && by == "" && sort == "")
			if err != nil {
				return err
			}
			return a.exit(ctx, fleet.Hosts(answers))
		},
	}
	cmd.Flags().StringVar(&by, "by", "", "one row for each `host|guest|LABEL`")
	cmd.Flags().StringVar(&sort, "sort", "", "sort by `column`: proc, vsz, rss, usertime, systime, uptime, …")
	must(cmd.RegisterFlagCompletionFunc("by", func(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
		names := []string{"host", "guest"}
		if inv, err := a.completing(cmd); err == nil {
			for _, h := range inv.Hosts {
				for label := range h.Labels {
					names = append(names, label)
				}
			}
		}
		return startingWith("", names, text), cobra.ShellCompDirectiveNoFileComp
	}))
	must(cmd.RegisterFlagCompletionFunc("sort", cobra.NoFileCompletions))
	return cmd
}

// stat asks for the counters and prints them: those of each host as they come, or all
// together, added up and sorted.
func (a *app) stat(ctx context.Context, hosts []*inventory.Host, options view.StatOptions, live bool) (fleet.Answers[api.Stat], error) {
	var failed error
	progress := a.asking(len(hosts))
	of := func(r fanout.Result[*inventory.Host, api.Stat]) view.HostStat {
		return view.HostStat{Host: r.Host.Name, Stat: r.Value, Result: report.ResultOf(r.Outcome, r.Err)}
	}
	results := a.access.Stat(ctx, hosts, a.forks, follow(progress, func(h *inventory.Host) string { return h.Name }, &failed,
		func(_ int, r fanout.Result[*inventory.Host, api.Stat]) error {
			if !live {
				return nil
			}
			return view.Write(a.stdout, view.AsNDJSON, view.StatRecords(of(r)), nil)
		}))
	progress.Close()
	if live || failed != nil {
		return results, failed
	}
	var stats []view.HostStat
	answered := false
	for _, r := range results {
		stats = append(stats, of(r))
		answered = answered || r.Outcome == outcome.OK
	}
	if !answered && a.output == view.AsTable {
		return results, nil
	}
	return results, view.Stat(a.stdout, a.output, stats, options)
}

// grouping returns the grouping of --by: by host, by guest, or by a label of hosts.
func grouping(inv *inventory.Inventory, by string) (*view.Grouping, error) {
	switch by {
	case "host":
		return view.ByHost(), nil
	case "guest":
		return view.ByGuest(), nil
	}
	value := map[string]string{}
	for _, h := range inv.Hosts {
		if v, ok := h.Labels[by]; ok {
			value[h.Name] = v
		}
	}
	if len(value) == 0 {
		return nil, usage("--by host, guest, or a label that hosts have")(fmt.Errorf("--by %s: no host has such a label", by))
	}
	return &view.Grouping{
		Column: strings.ToUpper(by),
		Key:    func(host string, _ api.StatRow) string { return value[host] },
	}, nil
}

// discard is the writer of a table that is made only for its errors.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
