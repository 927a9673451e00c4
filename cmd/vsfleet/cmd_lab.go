package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/lab"
)

func (a *app) labCommand() *cobra.Command {
	o := lab.Options{Log: func(line string) {
		if !a.quiet {
			fmt.Fprintln(a.stderr, line)
		}
	}}
	cmd := group(&cobra.Command{
		Use:   "lab",
		Short: "Manage practice hosts on this machine",
		Long: `A lab consists of practice hosts on this machine, each with its own network,
processes and SSH server, and a copy-on-write view of this machine's files. vsfleet
connects to them as to any other host. It needs root.

Root on a lab host can do anything that root on this machine can: do not give it to
others.`,
		Example: `  vsfleet lab up --hosts 3
  vsfleet ping
  vsfleet lab down`,
	})

	cmd.PersistentFlags().StringVar(&o.Dir, "dir", labDir(), "`directory` for the lab's files (also: VSFLEET_LAB)")
	must(cmd.MarkPersistentFlagDirname("dir"))

	up := &cobra.Command{
		Use:   "up",
		Short: "Create, repair or enlarge the lab",
		Long: `Up creates the hosts, an inventory and an SSH key for them, and shows how to use
them. Hosts that already run are left alone. If up is interrupted, run it again to
complete the lab.`,
		Example: `  vsfleet lab up
  vsfleet lab up --hosts 5 --subnet 10.99.0.0/24`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("hosts") && o.Hosts < 1 {
				return &usageError{err: fmt.Errorf("--hosts %d: a lab has at least one", o.Hosts)}
			}
			l, err := lab.Up(cmd.Context(), o)
			if err != nil {
				return err
			}
			_, err = io.WriteString(a.stdout, l.Usage())
			return err
		},
	}
	up.Flags().IntVar(&o.Hosts, "hosts", 0, "minimum number of hosts (default: those there are, or 3)")
	up.Flags().StringVar(&o.Name, "name", "", "`name` of the lab, if there are several (default lab)")
	up.Flags().TextVar(&o.Subnet, "subnet", netip.Prefix{}, "IPv4 `network` of the hosts (default the first free 10.253.N.0/24)")

	down := &cobra.Command{
		Use:   "down",
		Short: "Remove the lab",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := lab.Status(cmd.Context(), o)
			missing := errors.Is(err, fs.ErrNotExist)
			if err := lab.Down(cmd.Context(), o); err != nil { // also what a killed up left
				return err
			}
			if missing {
				o.Log("there is no lab in " + o.Dir)
			} else {
				o.Log("the lab in " + o.Dir + " is down")
			}
			return nil
		},
	}
	status := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the lab",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab.Status(cmd.Context(), o)
			if errors.Is(err, fs.ErrNotExist) {
				return usage("make one: vsfleet lab up")(fmt.Errorf("there is no lab in %s", o.Dir))
			}
			if err != nil {
				return err
			}
			return a.labStatus(l)
		},
	}
	cmd.AddCommand(noData(up), noData(down), status)
	return cmd
}

func (a *app) labStatus(l *lab.Lab) error {
	var records []report.LabRecord
	for _, h := range l.Hosts {
		records = append(records, report.LabRecord{Host: h.Name, Address: h.Address, Up: h.PID != 0, SSH: h.SSH, PID: h.PID, Guests: h.Guests})
	}
	return show(a, records, view.LabTable)
}
