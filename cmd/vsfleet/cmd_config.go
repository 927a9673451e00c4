package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
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
/etc/vsfleet/config.yml. Before the default of connect-timeout comes the ConnectTimeout
of ssh_config, host by host.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.effective(cmd.Context()); err != nil {
				return err
			}
			return show(a, a.origins, view.SettingTable)
		},
	})
	return cmd
}

// effective replaces values that stand for others by these.
func (a *app) effective(ctx context.Context) error {
	for i := range a.origins {
		r := &a.origins[i]
		switch {
		case r.Name == "connect-timeout" && r.Origin == "default":
			r.Value = fleet.DefaultConnectTimeout.String()
		case r.Name == "store" && r.Value == "":
			r.Value = a.history.Place()
		case r.Name == "inventory" && r.Value == "":
			path, err := nearInventory(ctx)
			if none := new(usageError); errors.As(err, &none) {
				path, err = "none", nil
			}
			if err != nil {
				return err
			}
			r.Value = path
		}
	}
	return nil
}
