package main

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/rollout"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// imageRecord is an image of a host, in machine formats.
type imageRecord struct {
	Host string `json:"host"`
	api.Image
	Guests int `json:"guests"` // that are made of it
	report.Result
}

func (a *app) imageCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "image",
		Short: "Manage images",
		Long: `An image is a read-only reference installation that all guests built from it share
on a host. vsfleet apply builds the images that the inventory names.`,
	})

	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the images on hosts",
		Example: `  vsfleet image list
  vsfleet image list -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			_, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			results, err := ask(a, hosts, func(w fleet.Watch[api.State]) fleet.Answers[api.State] {
				return a.access.State(ctx, hosts, a.forks, w)
			}, imageRecords, func(w io.Writer, answers fleet.Answers[api.State]) error {
				var records []imageRecord
				for _, r := range answers {
					if r.Outcome == outcome.OK {
						records = append(records, imageRecords(r.Host, r.Value, report.Result{Status: outcome.OK})...)
					}
				}
				return imageTable(w, records)
			}, nil)
			if err != nil {
				return err
			}
			return a.told(ctx, failures(results), fanout.Outcomes(results))
		},
	})
	cmd.AddCommand(a.imageRemoveCommand())
	return cmd
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
			var records []toldRecord
			for _, h := range run.Hosts {
				records = append(records, toldRecord{h.Name, h.Text, h.Result})
			}
			if err := a.tell(records); err != nil {
				return err
			}
			return a.told(ctx, run.Hosts, run.Outcomes())
		},
	}
	a.lockWait(cmd)
	return cmd
}

func imageRecords(h *inventory.Host, st api.State, result report.Result) []imageRecord {
	if result.Status != outcome.OK {
		return []imageRecord{{Host: h.Name, Result: result}}
	}
	uses := map[string]int{}
	for _, g := range st.Guests {
		uses[g.Image]++
	}
	var records []imageRecord
	for _, image := range st.Images {
		records = append(records, imageRecord{Host: h.Name, Image: image, Guests: uses[image.ID], Result: result})
	}
	return records
}

func imageTable(w io.Writer, records []imageRecord) error {
	if len(records) == 0 {
		return nil
	}
	var rows [][]string
	for _, r := range records {
		id := strings.TrimPrefix(r.ID, "sha256:")
		rows = append(rows, []string{
			r.Host, r.Spec.Name, id[:min(12, len(id))], r.Spec.Method + " " + strings.Join(r.Spec.Args, " "),
			view.Bytes(uint64(max(0, r.Bytes))), strconv.FormatInt(r.Files, 10), view.Duration(time.Since(r.Created)), strconv.Itoa(r.Guests),
		})
	}
	return view.Table(w, []string{"HOST", "IMAGE", "ID", "MADE BY", ">SIZE", ">FILES", ">AGE", ">GUESTS"}, rows)
}
