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
		Short: "Show settings with their values and origins",
		Long: `Show lists the settings that environment variables and files can set, with the value of
each and where it comes from. In order of precedence: the flag, the variable
(VSFLEET_FORKS for forks), vsfleet.yml in this directory, ~/.config/vsfleet/config.yml,
/etc/vsfleet/config.yml.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return show(a, a.origins, view.SettingTable) },
	})
	return cmd
}
