package main

import (
	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/view"
)

func (a *app) configCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "config",
		Short: "Show the settings of vsfleet",
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "show",
		Short: "Show each setting, its value, and where that came from",
		Long: `Show lists the settings that environment variables and files may set. The first of these
that sets one wins: the flag, the variable (VSFLEET_FORKS for forks), vsfleet.yml in this
directory, ~/.config/vsfleet/config.yml, /etc/vsfleet/config.yml.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return show(a, a.origins, view.SettingTable) },
	})
	return cmd
}
