package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) volumeCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "volume",
		Short: "Manage volumes",
		Long: `A volume is a directory of a host that outlives the guests that use it. The first
start of a guest that the inventory gives a volume makes it.`,
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "list [PATTERN]",
		Short: "List the volumes on hosts, and the guests that have them",
		Example: `  vsfleet volume list
  vsfleet volume list 'db*' -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeHosts,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			hosts, err := a.hostsNamed(ctx, args)
			if err != nil {
				return err
			}
			answers, err := ask(a, hosts, func(w fleet.Watch[api.Volumes]) fleet.Answers[api.Volumes] {
				return a.access.Volumes(ctx, hosts, a.forks, w)
			}, func(h *inventory.Host, v api.Volumes, result report.Result) []report.VolumeRecord {
				return report.VolumeRecords(h.Name, v, result)
			}, listing[report.VolumeRecord]{table: view.VolumeTable, none: "no volumes"})
			if err != nil {
				return err
			}
			return a.exit(ctx, fleet.Hosts(answers))
		},
	}, a.volumeDeleteCommand())
	return cmd
}

func (a *app) volumeDeleteCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a volume, with all that it holds, from hosts",
		Long: `Delete removes the volume of this name from every host that has it. Hosts with a
guest that has the volume, running or stopped, keep it and report an error.`,
		Example: "  vsfleet volume delete -l db1 scratch",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err == nil && !yes {
				err = a.confirmVolume(ctx, args[0], hosts)
			}
			if err != nil {
				return err
			}
			progress := a.progress(len(hosts))
			run := a.access.Rollout(a.forks, progress.Watch).Each(ctx, "volume delete", hosts, func(ctx context.Context, n rollout.Node) (string, error) {
				deleted, err := n.DeleteVolume(ctx, api.DeleteVolume{Name: args[0]})
				switch {
				case err != nil:
					return "", err
				case !deleted.Deleted:
					return "it is not here", nil
				}
				return "deleted volume " + args[0], nil
			})
			progress.Close()
			var records []report.TextRecord
			for _, h := range run.Hosts {
				records = append(records, report.TextRecord{Host: h.Name, Text: h.Text, Result: h.Result})
			}
			if err := a.printTexts(records); err != nil {
				return err
			}
			return a.exit(ctx, run.Hosts)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	a.lockWait(cmd)
	return cmd
}

func (a *app) confirmVolume(ctx context.Context, name string, hosts []*inventory.Host) error {
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	all := fmt.Sprintf("volume %s of %s", view.Clean(name), view.Clean(nodeset.Fold(names)))
	return a.confirm(ctx, question{
		text:       fmt.Sprintf("Delete %s with all that it holds?", all),
		no:         "nothing was deleted",
		noTerminal: all + " would be deleted with all that it holds, and there is no terminal to ask",
		hint:       "to delete it: --yes",
	})
}
