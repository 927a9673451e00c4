package main

import (
	"context"
	"sync"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) imageGCCommand() *cobra.Command {
	var req api.Collect
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove images that nothing uses",
		Long: `Gc removes from every host the images that no guest uses, and the files that no image
has. An image is used by guests that are made from it, running or not, and by what is kept
to revert them. Unless --all is given, the newest image of each name stays on its host too,
and so do the current version of each image and the one to which a rollback would go.`,
		Example: `  vsfleet image gc -n
  vsfleet image gc --all -l db1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			if !req.All {
				req.Keep = a.versions.File().Kept()
			}
			var mu sync.Mutex
			collected := map[string]api.Collected{}
			progress := a.progress(len(hosts))
			run := a.access.Rollout(a.forks, progress.Watch).EachHost(ctx, "image gc", hosts, func(ctx context.Context, host string, n rollout.Node) (string, error) {
				done, err := n.CollectImages(ctx, req)
				mu.Lock()
				defer mu.Unlock()
				collected[host] = done
				return "", err
			})
			progress.Close()
			var records []report.CollectRecord
			for _, h := range run.Hosts {
				records = append(records, report.CollectRecord{Host: h.Name, Collected: collected[h.Name], Result: h.Result})
			}
			if err := show(a, records, view.CollectTable); err != nil {
				return err
			}
			return a.exit(ctx, run.Hosts)
		},
	}
	cmd.Flags().BoolVar(&req.All, "all", false, "remove the newest image of a name and versions for a rollback, too")
	checkFlag(cmd.Flags(), &req.Dry, "only show what would be removed")
	a.lockWait(cmd)
	return cmd
}

func (a *app) imageCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Look for damaged images on hosts",
		Long: `Check has every host read all files of its images and compare them with their digests. It
shows what is damaged, which images have it, and who uses these. The exit status is 2 if
anything is damaged. To mend an image, remove it and have it copied or built again: what
arrives replaces what is damaged.`,
		Example: `  vsfleet image check
  vsfleet image check -l db1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			damaged := false
			answers, err := ask(a, hosts, func(w fleet.Watch[api.StoreCheck]) fleet.Answers[api.StoreCheck] {
				return a.access.CheckStore(ctx, hosts, a.forks, w)
			}, func(h *inventory.Host, c api.StoreCheck, result report.Result) []report.StoreRecord {
				damaged = damaged || len(c.Damaged) > 0
				return []report.StoreRecord{{Host: h.Name, StoreCheck: c, Result: result}}
			}, listing[report.StoreRecord]{table: view.StoreTable})
			if err != nil {
				return err
			}
			if err := a.exit(ctx, fleet.Hosts(answers)); err != nil {
				return err
			}
			if damaged {
				return exitStatus(outcome.ExitFailed)
			}
			return nil
		},
	}
}
