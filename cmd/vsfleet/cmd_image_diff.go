package main

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/versions"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) imageDiffCommand() *cobra.Command {
	var rows int
	cmd := &cobra.Command{
		Use:   "diff FROM [TO]",
		Short: "Show what differs between two images: packages and files",
		Long: `Diff compares two images: which packages were upgraded, added or removed, and which files,
with what of them has changed: type, content, mode, owner, target of a link, attributes, and
whether they are another name of a file. Times of modification are only counted.

Each image is NAME, for its current version, NAME@VERSION, or the beginning of an ID. Without
TO, the version before FROM is compared with it. Packages are those of dpkg, apk and
rpm. The images are read on hosts that have them; vsfleet compares what comes with the digests
in their IDs.`,
		Example: `  vsfleet image diff bookworm              what the last update has changed
  vsfleet image diff bookworm@3 bookworm@7
  vsfleet image diff 5ac86e5d trixie -o json`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeVersions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if rows < 0 {
				return &usageError{err: errors.New("--rows: want a number, 0 for all")}
			}
			inv, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			progress := a.asking(len(hosts))
			differ := fleet.ImageDiffer{
				Access: &a.access, Inventory: inv, Known: a.versions.File(),
				Answers: a.access.State(ctx, hosts, a.forks, fleet.Watch[api.State]{}),
			}
			diff, err := differ.Diff(ctx, args[0], strings.Join(args[1:], ""))
			progress.Close()
			switch {
			case errors.Is(err, fleet.ErrNoSuchImage):
				return &usageError{err: err}
			case err != nil:
				return err
			}
			return show(a, []report.ImageDiff{diff}, func(w io.Writer, _ []report.ImageDiff) error { return view.ImageDiff(w, diff, rows) })
		},
	}
	cmd.Flags().IntVarP(&rows, "rows", "n", 50, "`number` of packages, and of files, to show; 0: all")
	must(cmd.RegisterFlagCompletionFunc("rows", cobra.NoFileCompletions))
	return cmd
}

// completeVersions completes names of images, and versions of one that is written.
func (a *app) completeVersions(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	inv, err := a.completing(cmd)
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	known, _ := versions.Read(versions.Path(inv)) // or its error is that of the command
	var names []string
	for _, image := range inv.Images {
		names = append(names, image.Name)
	}
	for _, r := range report.VersionRecords(known, nil) {
		names = append(names, r.String())
	}
	return startingWith("", names, text), cobra.ShellCompDirectiveNoFileComp
}
