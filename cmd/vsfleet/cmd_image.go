package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "image",
		Short: "Manage images",
		Long: `An image is a read-only reference installation that all guests built from it share
on a host. vsfleet apply builds the images that the inventory names.`,
	})

	cmd.AddCommand(a.imageListCommand(), a.imageRemoveCommand(), a.imageGCCommand(), a.imageCheckCommand(), a.imagePushCommand(), a.imageUpdateCommand(), a.imagePullCommand(), a.imageRollbackCommand(), a.imageReleaseCommand(), a.imageVersionsCommand(), a.imageDiffCommand())
	return cmd
}

func (a *app) imageListCommand() *cobra.Command {
	var by string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the images on hosts",
		Long: `List shows the images of each host. With --by image, it shows one row for each name:

  HOSTS           how many hosts have its current version, of those that were asked
  GUESTS          how many guests are made of that, of those made of any version
  OTHER VERSIONS  hosts that have another version only
  LACK IT         hosts that have none, though the inventory has guests of it there

Without a version in images.lock, the image that most hosts have counts as the current one.`,
		Example: `  vsfleet image list
  vsfleet image list --by image        how far hosts differ
  vsfleet image list -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if by != "" && by != "image" {
				return usage("--by image")(fmt.Errorf("--by %s: there is nothing else than image", by))
			}
			inv, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			if by == "image" {
				return a.imageSpread(ctx, inv, hosts)
			}
			answers, err := ask(a, hosts, func(w fleet.Watch[api.State]) fleet.Answers[api.State] {
				return a.access.State(ctx, hosts, a.forks, w)
			}, func(h *inventory.Host, st api.State, result report.Result) []report.ImageRecord {
				return report.ImageRecords(h.Name, st, a.versions.File(), result)
			}, listing[report.ImageRecord]{table: view.ImageTable, none: "no images"})
			if err != nil {
				return err
			}
			return a.exit(ctx, fleet.Hosts(answers))
		},
	}
	cmd.Flags().StringVar(&by, "by", "", "one row for each `image`, not for each host")
	must(cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{"image"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// imageSpread shows how far hosts differ in their images.
func (a *app) imageSpread(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host) error {
	var failed error
	progress := a.asking(len(hosts))
	answers := a.access.State(ctx, hosts, a.forks, follow(progress, func(h *inventory.Host) string { return h.Name }, &failed,
		func(int, fanout.Result[*inventory.Host, api.State]) error { return nil }))
	progress.Close()
	if failed == nil {
		failed = show(a, fleet.Spread(inv, a.versions.File(), answers), view.ImageSpreadTable)
	}
	if failed != nil {
		return failed
	}
	return a.exit(ctx, fleet.Hosts(answers))
}

func (a *app) imageRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Remove an image from hosts",
		Long: `Remove deletes the image with this ID, or ID prefix, from every host that has it.
Hosts with a guest that uses the image keep it and report an error.`,
		Example: `  vsfleet image remove 3f0c2a91d7be
  vsfleet image remove -l db1 3f0c2a91d7be`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			progress := a.progress(len(hosts))
			run := a.access.Rollout(a.forks, progress.Watch).Each(ctx, "image remove", hosts, func(ctx context.Context, n rollout.Node) (string, error) {
				removed, err := n.RemoveImage(ctx, api.RemoveImage{Image: args[0]})
				switch {
				case err != nil:
					return "", err
				case removed.ID == "":
					return "it is not here", nil
				}
				return "removed " + removed.ID, nil
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
	a.lockWait(cmd)
	return cmd
}
