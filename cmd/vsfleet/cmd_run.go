package main

import (
	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/inventory"
)

// commandsOn is one command on many hosts.
func commandsOn(hosts []*inventory.Host, argv []string) []fleet.Command {
	list := make([]fleet.Command, len(hosts))
	for i, h := range hosts {
		list[i] = fleet.Command{Host: h, Argv: argv}
	}
	return list
}

// commandsIn is one command in many guests.
func commandsIn(guests []inventory.Instance, argv []string) []fleet.Command {
	list := make([]fleet.Command, len(guests))
	for i, g := range guests {
		list[i] = fleet.Command{Host: g.Host, Guest: g.Guest.Name, Argv: argv}
	}
	return list
}

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
				return a.run(cmd, commandsIn(chosen, args), a.access.Run)
			}
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			return a.run(cmd, commandsOn(hosts, args), a.access.Run)
		},
	}
	cmd.Flags().StringVar(&guests, "guests", "", "run inside guests matching this `pattern`: www, lab1/*, web*/www")
	must(cmd.RegisterFlagCompletionFunc("guests", a.completeGuests))
	addStdinFlag(cmd)
	ownFlags(cmd)
	return cmd
}

// ownFlags leaves flags behind the command's words to the command: the -l of
// "run ls -l" is ls's.
func ownFlags(cmd *cobra.Command) {
	cmd.Flags().SetInterspersed(false)
	cmd.DisableFlagsInUseLine = true
}
