package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) inventoryCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "inventory",
		Short: "Inspect the inventory",
		Long: `Inventory commands read inventories and contact no host. An inventory is a YAML file
with hosts, groups, images and guests; hosts, groups and variables may also come from
Ansible's inventories. Several are merged. All mistakes are reported together, each
with file, line and column.`,
	})

	cmd.AddCommand(a.inventoryCheck(), a.inventoryList(), a.inventoryShow(), a.inventoryGraph(), a.inventorySchema(), a.inventoryEncrypt(), a.inventoryEdit(), a.inventoryImport())
	return cmd
}

func (a *app) inventoryCheck() *cobra.Command {
	return noData(&cobra.Command{
		Use:     "check",
		Short:   "Validate the inventory",
		Example: `  vsfleet inventory check -i fleet.yml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			inv, err := a.inventory(cmd.Context())
			if err != nil {
				return err
			}
			guests := 0
			for _, h := range inv.Hosts {
				guests += len(h.Guests)
			}
			_, err = fmt.Fprintf(a.stdout, "%s, %s, %s, %s: no mistakes\n",
				number(len(inv.Hosts), "host"), number(len(inv.Groups), "group"), number(len(inv.Images), "image"), number(guests, "guest"))
			return err
		},
	})
}

func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func (a *app) inventoryList() *cobra.Command {
	var guests bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List hosts or guests",
		Example: `  vsfleet inventory list
  vsfleet inventory list -l 'site=fra' --guests`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, hosts, err := a.selectHosts(cmd.Context())
			if err != nil {
				return err
			}
			if guests {
				return show(a, report.WantedRecords(hosts), view.WantedTable)
			}
			return show(a, report.HostRecords(hosts), view.HostTable)
		},
	}
	cmd.Flags().BoolVar(&guests, "guests", false, "list the guests of each host")
	return cmd
}

func (a *app) inventoryShow() *cobra.Command {
	var vars bool
	cmd := &cobra.Command{
		Use:   "show HOST",
		Short: "Show the resolved settings of a host and its guests",
		Long: `Show prints a host with its groups, labels, SSH settings and variables, and its
guests with all ${…} replaced. The default output format is YAML; table is not
available, except with --vars: that shows each variable and where it was given.`,
		Example: `  vsfleet inventory show web01
  vsfleet inventory show web01 --vars
  vsfleet inventory show 'web*' -o json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			inv, err := a.inventory(cmd.Context())
			if err != nil {
				return err
			}
			hosts, err := inv.Select(args[0])
			if err != nil {
				return err
			}
			if vars {
				return show(a, report.VarRecords(hosts), view.VarTable)
			}
			format := a.output
			if format == view.AsTable {
				format = view.AsYAML
			}
			return view.Write(a.stdout, format, report.ResolvedRecords(hosts), nil)
		},
	}
	cmd.Flags().BoolVar(&vars, "vars", false, "show each variable and where it was given")
	return cmd
}

func (a *app) inventorySchema() *cobra.Command {
	return noData(&cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of inventory files",
		Example: `  vsfleet inventory schema > fleet.schema.json
  # and at the top of fleet.yml:
  # yaml-language-server: $schema=fleet.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(inventory.Schema())
			return err
		},
	})
}
