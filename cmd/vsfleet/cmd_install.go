package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

func (a *app) installCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install",
		Short: "Install vserver and its companions on hosts",
		Long: `Install copies vsnode to /usr/local/sbin on every host, with links named like
Linux-VServer's commands, for administrators who log in to a host. vsfleet itself
does not need this; it keeps its own copy in /var/lib/vsnode.`,
		Example: `  vsfleet install
  ssh web01 vserver www status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			answers := a.access.Install(ctx, hosts, a.forks)
			var records []report.TextRecord
			for _, r := range answers {
				text := ""
				if r.Outcome == outcome.OK {
					text = "installed " + r.Value.Path + " with " + strings.Join(r.Value.Links, ", ")
				}
				records = append(records, report.TextRecord{Host: r.Host.Name, Text: text, Result: report.ResultOf(r.Outcome, r.Err)})
			}
			if err := a.printTexts(records); err != nil {
				return err
			}
			return a.exit(ctx, fleet.Hosts(answers))
		},
	}
}
