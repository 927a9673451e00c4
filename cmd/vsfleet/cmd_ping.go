package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/view"
)

// pingRecord is one host in machine formats.
type pingRecord struct {
	Host      string `json:"host"`
	Address   string `json:"address"`
	Version   string `json:"version"` // of vsnode
	Kernel    string `json:"kernel"`
	OS        string `json:"os"`
	Arch      string `json:"arch"`
	ConnectNS int64  `json:"connectNanoseconds"`
	StartNS   int64  `json:"startNanoseconds"`
	RTTNS     int64  `json:"roundTripNanoseconds"`
}

func (a *app) pingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ping",
		Short: "Reach every host and say how long it takes",
		Long: `Ping connects to every host, puts vsnode there where it is missing, and says
which versions answer and how long each part takes: CONNECT to the end of
authentication, START of vsnode (with the copy, the first time), RTT of one
question to sshd.`,
		Example: `  vsfleet ping
  vsfleet ping -l 'web*' -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			results := a.access.Ping(ctx, hosts, a.forks)
			var records []pingRecord
			for _, r := range results {
				if r.Status != fanout.OK {
					continue
				}
				p := r.Value
				records = append(records, pingRecord{
					Host: r.Host.Name, Address: r.Host.Address, Version: p.Host.Version,
					Kernel: p.Host.Kernel, OS: p.Host.OS, Arch: p.Host.Arch,
					ConnectNS: p.Connect.Nanoseconds(), StartNS: p.Start.Nanoseconds(), RTTNS: p.RoundTrip.Nanoseconds(),
				})
			}
			err = view.Write(a.stdout, a.output, records, func(w io.Writer) error { return pingTable(w, records) })
			if err != nil {
				return err
			}
			return a.told(ctx, failures(results), fanout.Statuses(results))
		},
	}
}

func pingTable(w io.Writer, records []pingRecord) error {
	if len(records) == 0 {
		return nil
	}
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{
			r.Host, r.Address, r.Version, r.Kernel, r.OS, r.Arch,
			duration(r.ConnectNS), duration(r.StartNS), duration(r.RTTNS),
		})
	}
	return view.Table(w, []string{"HOST", "ADDRESS", "VSNODE", "KERNEL", "OS", "ARCH", ">CONNECT", ">START", ">RTT"}, rows)
}

func duration(ns int64) string { return fmt.Sprint(view.Duration(time.Duration(ns))) }
