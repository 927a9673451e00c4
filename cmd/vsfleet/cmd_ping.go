package main

import (
	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) pingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ping",
		Short: "Connect to hosts and show how long it takes",
		Long: `Ping connects to every host, copies vsnode there if it is missing, and shows the
versions and the time of each part: CONNECT up to the end of authentication, START
of vsnode (including the copy the first time), and RTT of one request to sshd.`,
		Example: `  vsfleet ping
  vsfleet ping -l 'web*' -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			answers, err := a.ping(hosts, func(w fleet.Watch[report.Ping]) fleet.Answers[report.Ping] {
				return a.access.Ping(ctx, hosts, a.forks, w)
			})
			if err != nil {
				return err
			}
			return a.exit(ctx, fleet.Hosts(answers))
		},
	}
}

// ping prints how hosts answer; on a terminal, each as it does.
func (a *app) ping(hosts []*inventory.Host, question func(fleet.Watch[report.Ping]) fleet.Answers[report.Ping]) (fleet.Answers[report.Ping], error) {
	var live func(report.PingRecord) error
	if a.stdout.Terminal && a.output == view.AsTable {
		live = view.PingRows(a.stdout, report.HostRecords(hosts))
	}
	return ask(a, hosts, question, func(h *inventory.Host, p report.Ping, result report.Result) []report.PingRecord {
		return []report.PingRecord{report.PingRecordOf(h.Name, h.Address, p, result)}
	}, listing[report.PingRecord]{table: view.PingTable, live: live})
}
