package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
)

func (a *app) cloneCommand() *cobra.Command {
	var opt fleet.CloneOptions
	var addresses []string
	cmd := &cobra.Command{
		Use:   "clone HOST/GUEST HOST/GUEST",
		Short: "Make another guest of a guest, here or on another host",
		Long: `Clone makes a second guest with the files of the first one, on its host or on another one. A
guest that runs goes on meanwhile, and stands still while what it has changed in that time is
copied again.

The clone has host keys of sshd and a machine id of its own, and its own hostname and addresses
in /etc/hostname and /etc/hosts. If the inventory has the clone, it gets the inventory's
settings; else those of the guest, but for context, hostname, addresses, ports, forwards and
what starts it at boot. Volumes and what else is mounted in the guest are not copied. A
guest that exists is not replaced.`,
		Example: `  vsfleet guest clone lab1/www lab1/www2 --start
  vsfleet guest clone lab1/mail lab2/mail-test --address 192.0.2.17/24`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			inv, from, err := a.placeOf(cmd, args[0])
			if err != nil {
				return err
			}
			_, to, err := a.placeOf(cmd, args[1])
			if err != nil {
				return err
			}
			for _, text := range addresses {
				address, err := netip.ParsePrefix(text)
				if err != nil {
					return usage("as in --address 192.0.2.17/24")(fmt.Errorf("--address: %w", err))
				}
				opt.Addresses = append(opt.Addresses, address)
			}
			switch {
			case from.Host.Name == to.Host.Name && from.Guest.Name == to.Guest.Name:
				return &usageError{err: errors.New("a clone needs another name, or another host")}
			case to.Guest.Image != "" && (len(addresses) > 0 || opt.Hostname != ""):
				return usage("change it there")(fmt.Errorf("%s: the inventory has the settings of %s: --address and --hostname are for guests that it lacks", to.Guest.Pos, args[1]))
			}
			opt.Progress = a.note
			run := report.Run{Hosts: []report.Host{a.access.Clone(ctx, inv, from, to, opt)}}
			if err := a.recap(ctx, run); err != nil || a.quiet {
				return err
			}
			if !opt.Start {
				fmt.Fprintf(a.stderr, "%s is stopped; to start it: vsfleet guest start %[1]s\n", args[1])
			}
			if to.Guest.Image == "" {
				fmt.Fprintf(a.stderr, "%s is not in the inventory: apply leaves it alone, and apply --prune deletes it\n", args[1])
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&addresses, "address", nil, "`ADDRESS/PREFIX` of a clone that the inventory lacks; can be repeated")
	flags.StringVar(&opt.Hostname, "hostname", "", "`name` of a clone that the inventory lacks (default: the guest's name)")
	flags.BoolVar(&opt.Volumes, "leave-volumes", false, "clone a guest that has volumes, without them")
	flags.BoolVar(&opt.Start, "start", false, "start the clone")
	a.lockWait(cmd)
	return cmd
}
