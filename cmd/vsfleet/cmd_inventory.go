package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) inventoryCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "inventory",
		Short: "Inspect the inventory",
		Long: `Inventory commands read inventory files and contact no host. An inventory is a YAML
file with hosts, groups, images and guests; several files are merged. All mistakes
are reported together, each with file, line and column.`,
	})

	cmd.AddCommand(a.inventoryCheck(), a.inventoryList(), a.inventoryShow(), a.inventorySchema())
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

// hostRecord is a host of the inventory, in machine formats.
type hostRecord struct {
	Host    string            `json:"host"`
	Address string            `json:"address"`
	Port    int               `json:"port"`
	Groups  []string          `json:"groups"`
	Labels  map[string]string `json:"labels"`
	Guests  []string          `json:"guests"`
}

// wantedRecord is a guest as the inventory wants it, in machine formats.
type wantedRecord struct {
	Host    string `json:"host"`
	Guest   string `json:"guest"`
	Context int    `json:"context"` // 0: the host chooses
	Image   string `json:"image"`
	setting.Record
	Files []string `json:"files,omitempty"` // their paths; contents are not listed
	State string   `json:"state"`
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
			_, hosts, err := a.chosen(cmd.Context())
			if err != nil {
				return err
			}
			if guests {
				return a.listGuests(hosts)
			}
			return a.listHosts(hosts)
		},
	}
	cmd.Flags().BoolVar(&guests, "guests", false, "list the guests of each host")
	return cmd
}

func (a *app) listHosts(hosts []*inventory.Host) error {
	var records []hostRecord
	for _, h := range hosts {
		r := hostRecord{Host: h.Name, Address: h.Address, Port: h.Port, Groups: h.Groups, Labels: h.Labels}
		for _, g := range h.Guests {
			r.Guests = append(r.Guests, g.Name)
		}
		records = append(records, r)
	}
	return view.Write(a.stdout, a.output, records, func(w io.Writer) error {
		var rows [][]string
		for _, r := range records {
			rows = append(rows, []string{r.Host, r.Address, strings.Join(r.Groups, ","), pairs(r.Labels), strings.Join(r.Guests, ",")})
		}
		return view.Table(w, []string{"HOST", "ADDRESS", "GROUPS", "LABELS", "GUESTS"}, rows)
	})
}

func pairs(m map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+m[k])
	}
	return strings.Join(list, ",")
}

func (a *app) listGuests(hosts []*inventory.Host) error {
	var records []wantedRecord
	for _, h := range hosts {
		for _, g := range h.Guests {
			records = append(records, wanted(h, g))
		}
	}
	return view.Write(a.stdout, a.output, records, func(w io.Writer) error {
		if len(records) == 0 {
			return nil
		}
		var rows [][]string
		for _, r := range records {
			context := "auto"
			if r.Context != 0 {
				context = strconv.Itoa(r.Context)
			}
			ends := strings.Join(slices.Concat(r.Addresses, r.Ports, r.Forwards), " ")
			rows = append(rows, []string{r.Host, r.Guest, context, r.State, r.Image, string(r.Mode), ends})
		}
		return view.Table(w, []string{"HOST", "GUEST", ">CTX", "STATE", "IMAGE", "NETWORK", "ADDRESSES AND PORTS"}, rows)
	})
}

func wanted(h *inventory.Host, g *inventory.Guest) wantedRecord {
	r := wantedRecord{Host: h.Name, Guest: g.Name, Context: g.Context, Image: g.Image, Record: g.Record(), State: g.State}
	for _, f := range g.Files {
		r.Files = append(r.Files, f.Path)
	}
	if g.HostAddress {
		r.Addresses = []string{"host"}
	}
	return r
}

// shownHost is all that the inventory says of a host, and where.
type shownHost struct {
	hostRecord
	At     string            `json:"at"`
	SSH    shownSSH          `json:"ssh"`
	Netdev string            `json:"netdev,omitempty"`
	Vars   map[string]string `json:"vars"`
	Wanted []wantedRecord    `json:"wanted"`
}

type shownSSH struct {
	User       string `json:"user,omitempty"`
	Identity   string `json:"identity,omitempty"`
	KnownHosts string `json:"knownHosts,omitempty"`
	Jump       string `json:"jump,omitempty"`
	Alias      string `json:"hostKeyAlias,omitempty"`
	Become     bool   `json:"become"`
}

func (a *app) inventoryShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show HOST",
		Short: "Show the resolved settings of a host and its guests",
		Long: `Show prints a host with its groups, labels, SSH settings and variables, and its
guests with all ${…} replaced. The default output format is YAML; table is not
available.`,
		Example: `  vsfleet inventory show web01
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
			var records []shownHost
			for _, h := range hosts {
				r := shownHost{
					hostRecord: hostRecord{Host: h.Name, Address: h.Address, Port: h.Port, Groups: h.Groups, Labels: h.Labels},
					At:         h.Pos.String(),
					SSH:        shownSSH{h.SSH.User, h.SSH.Identity, h.SSH.KnownHosts, h.SSH.Jump, h.SSH.HostKeyAlias, h.Become},
					Netdev:     h.Netdev, Vars: h.Vars,
				}
				for _, g := range h.Guests {
					r.Guests = append(r.Guests, g.Name)
					r.Wanted = append(r.Wanted, wanted(h, g))
				}
				records = append(records, r)
			}
			format := a.output
			if format == view.AsTable {
				format = view.AsYAML
			}
			return view.Write(a.stdout, format, records, nil)
		},
	}
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
