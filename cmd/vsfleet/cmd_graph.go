package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
)

// graphFormats are the values of --format.
var graphFormats = []string{"tree", "dot", "mermaid"}

func (a *app) inventoryGraph() *cobra.Command {
	var vars bool
	var format string
	cmd := &cobra.Command{
		Use:   "graph [GROUP]",
		Short: "Show groups with their children and hosts",
		Long: `Graph shows all groups and hosts, or those of one group, as a tree in the form of
ansible-inventory --graph. Secrets are redacted.`,
		Example: `  vsfleet inventory graph
  vsfleet inventory graph web --vars
  vsfleet inventory graph --format dot | dot -Tsvg > fleet.svg
  vsfleet inventory graph -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeGroup,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(graphFormats, format) {
				return &usageError{err: fmt.Errorf("--format %s: want tree, dot or mermaid", format)}
			}
			inv, hosts, err := a.selectHosts(cmd.Context())
			if err != nil {
				return err
			}
			records, root := report.GroupRecords(inv, hosts, vars), "all"
			if len(args) > 0 {
				root = args[0]
				if records = report.Below(records, root); len(records) == 0 {
					return usage("vsfleet inventory graph shows all groups")(fmt.Errorf("there is no group %q with hosts", root))
				}
			}
			return show(a, records, func(w io.Writer, records []report.GroupRecord) error {
				switch format {
				case "dot":
					return view.Dot(w, records)
				case "mermaid":
					return view.Mermaid(w, records)
				}
				return view.Graph(w, records, root)
			})
		},
	}
	cmd.Flags().BoolVar(&vars, "vars", false, "also show the variables of hosts")
	cmd.Flags().StringVar(&format, "format", "tree", "tree, dot (Graphviz) or mermaid (Markdown)")
	must(cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(graphFormats, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}
