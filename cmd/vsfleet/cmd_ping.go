package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

// pingRecord is one host in machine formats.
type pingRecord struct {
	Host      string  `json:"host"`
	Address   string  `json:"address"`
	Version   string  `json:"version"` // of vsnode
	Kernel    string  `json:"kernel"`
	OS        string  `json:"os"`
	Arch      string  `json:"arch"`
	Connect   float64 `json:"connectSeconds"`
	Start     float64 `json:"startSeconds"`
	RoundTrip float64 `json:"roundTripSeconds"`
	report.Result
}

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
			results, err := ask(a, hosts, func(w fleet.Watch[fleet.Ping]) fleet.Answers[fleet.Ping] {
				return a.access.Ping(ctx, hosts, a.forks, w)
			}, pingRecords, pingTable, a.pingLive(hosts))
			if err != nil {
				return err
			}
			return a.told(ctx, failures(results), fanout.Outcomes(results))
		},
	}
}

func pingRecords(h *inventory.Host, p fleet.Ping, result report.Result) []pingRecord {
	return []pingRecord{{
		Host: h.Name, Address: h.Address, Version: p.Host.Version,
		Kernel: p.Host.Kernel, OS: p.Host.OS, Arch: p.Host.Arch,
		Connect: report.Seconds(p.Connect), Start: report.Seconds(p.Start), RoundTrip: report.Seconds(p.RoundTrip),
		Result: result,
	}}
}

var pingColumns = []string{"HOST", "ADDRESS", "VSNODE", "KERNEL", "OS", "ARCH", ">CONNECT", ">START", ">RTT"}

func pingRow(h *inventory.Host, p fleet.Ping) []string {
	return []string{
		h.Name, h.Address, p.Host.Version, p.Host.Kernel, p.Host.OS, p.Host.Arch,
		view.Duration(p.Connect), view.Duration(p.Start), view.Duration(p.RoundTrip),
	}
}

func pingTable(w io.Writer, answers fleet.Answers[fleet.Ping]) error {
	var rows [][]string
	for _, r := range answers {
		if r.Outcome == outcome.OK {
			rows = append(rows, pingRow(r.Host, r.Value))
		}
	}
	if rows == nil {
		return nil
	}
	return view.Table(w, pingColumns, rows)
}

// pingLive prints each host as it answers, where somebody watches.
func (a *app) pingLive(hosts []*inventory.Host) func(fanout.Result[*inventory.Host, fleet.Ping]) error {
	if !a.stdout.Terminal || a.output != view.AsTable {
		return nil
	}
	widths := []int{0, 0, 8, 24, 32, 5, 5, 5, 5} // of what hosts say
	for _, h := range hosts {
		widths[0], widths[1] = max(widths[0], len(h.Name)), max(widths[1], len(h.Address))
	}
	rows := view.NewRows(a.stdout, pingColumns, widths)
	return func(r fanout.Result[*inventory.Host, fleet.Ping]) error {
		if r.Outcome != outcome.OK {
			return nil
		}
		return rows.Add(pingRow(r.Host, r.Value))
	}
}
