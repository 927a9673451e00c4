package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/registry"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/buildmethod"
	"github.com/vsfleet/vsfleet/internal/nearest"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) imageUpdateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Build or pull the next version of an image and copy it to its hosts",
		Long: `Update builds the image once more, on one host, as its method does it now, and copies
the result to all hosts with guests of the image. With "update: packages" in the inventory,
the packages in a copy of the last version are upgraded instead. An image of a registry is
pulled: if its tag has moved, the image has a next version. It changes no guest: the next apply
restarts them onto the new version, with canary, batches and health checks as any change.

The versions are kept in the file images.lock beside the inventory. Guests get the newest
one that is not held. If the build gives what a version has already, nothing changes.`,
		Example: `  vsfleet image update bookworm
  vsfleet apply --canary web01        move guests to it, one host first
  vsfleet image rollback bookworm     the version before is current again`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.updateImage(cmd.Context(), args[0]) },
	}
	a.lockWait(cmd)
	return cmd
}

func (a *app) imagePullCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pull NAME",
		Short: "Pull an image from its registry and copy it to its hosts",
		Long: `Pull is update for images of registries (method oci with -r): it looks up what the tag means
now. If that is what hosts have, nothing is pulled; else the image has a next version.`,
		Example:           `  vsfleet image pull debian`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			inv, err := a.inventory(cmd.Context())
			if err != nil {
				return err
			}
			image, err := a.image(inv, args[0])
			if err != nil {
				return err
			}
			if ref, _ := buildmethod.Registry(image.Method, image.Args); ref == "" {
				return usage("vsfleet image update %s builds it anew", image.Name)(fmt.Errorf("image %s is not of a registry: it is built by %s", image.Name, image.Method))
			}
			return a.updateImage(cmd.Context(), args[0])
		},
	}
	a.lockWait(cmd)
	return cmd
}

// updateImage makes the next version of an image.
func (a *app) updateImage(ctx context.Context, name string) error {
	inv, hosts, image, err := a.imageHosts(ctx, name)
	if err != nil {
		return err
	}
	if image.Digest != "" {
		return usage("take digest out of the inventory: versions stand in images.lock")(fmt.Errorf("image %s has only one version: the inventory names its digest", image.Name))
	}
	progress := a.progress(len(hosts))
	run := a.access.Rollout(a.forks, progress.Watch).Update(ctx, inv, hosts, image)
	progress.Close()
	if err := a.report(ctx, run, false); err != nil {
		return err
	}
	if a.quiet {
		return nil
	}
	newest, text := a.versions.File().Newest(image.Name), "image %s: the build gives version %d again: there is nothing newer\n"
	if slices.Contains(run.Outcomes(), outcome.Changed) {
		text = "image %s: version %d is current; to move guests to it: vsfleet apply\n"
	}
	fmt.Fprintf(a.stderr, text, image.Name, newest)
	return nil
}

// imageHosts returns an image of the inventory, and the hosts of -l that have guests of it
// or are the ones that build it.
func (a *app) imageHosts(ctx context.Context, name string) (*inventory.Inventory, []*inventory.Host, *inventory.Image, error) {
	inv, hosts, err := a.hosts(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	image, err := a.image(inv, name)
	if err != nil {
		return nil, nil, nil, err
	}
	hosts = slices.DeleteFunc(slices.Clone(hosts), func(h *inventory.Host) bool {
		return !slices.Contains(image.Builders, h) && !slices.Contains(inv.ImagesOf(h), image)
	})
	if len(hosts) == 0 {
		return nil, nil, nil, usage("name hosts that have guests of it with -l")(fmt.Errorf("image %s: none of these hosts has a guest of it", name))
	}
	return inv, hosts, image, nil
}

// image returns an image of the inventory.
func (a *app) image(inv *inventory.Inventory, name string) (*inventory.Image, error) {
	if image := inv.Image(name); image != nil {
		return image, nil
	}
	var names []string
	for _, image := range inv.Images {
		names = append(names, image.Name)
	}
	err := fmt.Errorf("the inventory has no image %q", name)
	if near := nearest.Word(name, names); near != "" {
		return nil, usage("did you mean %s?", near)(err)
	}
	return nil, &usageError{err: err}
}

func (a *app) imagePushCommand() *cobra.Command {
	var reference string
	cmd := &cobra.Command{
		Use:   "push [NAME]...",
		Short: "Copy the current versions of images to hosts, or one to a registry",
		Long: `Push brings images to hosts, so that a later apply does not have to wait for them. Without
names it brings each host what its guests need. Where no host has an image, one builds it.
No guest is changed.

With --registry, it writes the current version of one image to an OCI registry instead, from
a host that has it. If the tag there is an earlier version that this host has too, what
differs becomes a layer on it.`,
		Example: `  vsfleet image push
  vsfleet image push bookworm --registry registry.example/base/bookworm:12
  vsfleet image push -l spare bookworm    to hosts that have no guest of it yet`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if cmd.Flags().Changed("registry") {
				return a.pushToRegistry(ctx, args, reference)
			}
			inv, hosts, err := a.hosts(ctx)
			if err != nil {
				return err
			}
			var named []*inventory.Image
			for _, name := range args {
				image, err := a.image(inv, name)
				if err != nil {
					return err
				}
				named = append(named, image)
			}
			progress := a.progress(len(hosts))
			run := a.access.Rollout(a.forks, progress.Watch).Push(ctx, inv, hosts, func(h *inventory.Host) []*inventory.Image {
				if named != nil {
					return named
				}
				return inv.ImagesOf(h)
			})
			progress.Close()
			return a.report(ctx, run, false)
		},
	}
	a.lockWait(cmd)
	cmd.Flags().StringVar(&reference, "registry", "", "write the image to a registry, as this `host/name:tag`")
	return cmd
}

// pushToRegistry writes an image to a registry.
func (a *app) pushToRegistry(ctx context.Context, args []string, reference string) error {
	if len(args) != 1 {
		return &usageError{err: errors.New("name one image: vsfleet image push NAME --registry HOST/NAME:TAG")}
	}
	if err := registry.Check(reference); err != nil {
		return &usageError{err: err}
	}
	inv, hosts, err := a.hosts(ctx)
	if err != nil {
		return err
	}
	image, err := a.image(inv, args[0])
	if err != nil {
		return err
	}
	progress := a.progress(len(hosts))
	answers := a.access.State(ctx, hosts, a.forks, fleet.Watch[api.State]{})
	from, pushed, err := a.access.PushImage(ctx, answers, image, reference, func(host string, done, total int64) {
		progress.Watch(report.Event{Kind: report.Progress, Host: host, State: fmt.Sprintf("pushing %d of %d MiB", done>>20, total>>20)})
	})
	progress.Close()
	if err != nil {
		return err
	}
	text := "the registry has it already: " + pushed.Source
	switch size := view.Bytes(uint64(pushed.Bytes)); {
	case pushed.Base != "":
		text = fmt.Sprintf("pushed %s, a layer of %s on that of %s", pushed.Source, size, pushed.Base)
	case pushed.Bytes > 0:
		text = fmt.Sprintf("pushed %s, one layer of %s", pushed.Source, size)
	}
	return a.printTexts([]report.TextRecord{{Host: from, Text: text, Result: report.ResultOf(outcome.OK, nil)}})
}

func (a *app) imageRollbackCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "rollback NAME",
		Short: "Make the version of an image before the current one current again",
		Long: `Rollback holds the current version, so that the newest one before it is current again. It
changes the file images.lock and no host: the next apply restarts guests onto the version
before, which hosts still have. No later run uses a held version until it is released.`,
		Example: `  vsfleet image rollback bookworm --reason 'nginx 1.26 breaks the logs'
  vsfleet apply`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			inv, err := a.inventory(ctx)
			if err != nil {
				return err
			}
			image, err := a.image(inv, args[0])
			if err != nil {
				return err
			}
			from, to, err := a.versions.Rollback(ctx, image.Name, plan.Spec(image).Key(), reason)
			if err != nil {
				return err
			}
			if !a.quiet {
				fmt.Fprintf(a.stderr, "image %s: version %d is held, version %d is current; to move guests to it: vsfleet apply\n", image.Name, from, to)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "rolled back", "why, for those who look at it later")
	return cmd
}

func (a *app) imageReleaseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "release NAME VERSION",
		Short:             "Let a held version of an image be used again",
		Long:              `Release ends the hold that rollback, or an apply that put guests back, has set.`,
		Example:           `  vsfleet image release bookworm 3`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			number, err := strconv.Atoi(args[1])
			if err != nil || number < 1 {
				return &usageError{err: fmt.Errorf("version %q: want a number, as vsfleet image versions shows it", args[1])}
			}
			if _, err := a.inventory(ctx); err != nil {
				return err
			}
			changed, err := a.versions.Release(ctx, args[0], number)
			if err == nil && !changed && !a.quiet {
				fmt.Fprintf(a.stderr, "image %s: version %d was not held\n", args[0], number)
			}
			return err
		},
	}
}

func (a *app) imageVersionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "versions [NAME]...",
		Short: "List the versions of images and which of them are held",
		Long: `Versions lists what images.lock says, the newest version first. It asks no host:
vsfleet image list shows who has which version.`,
		Example: `  vsfleet image versions
  vsfleet image versions bookworm -o json`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			inv, err := a.inventory(cmd.Context())
			if err != nil {
				return err
			}
			known := a.versions.File()
			for _, name := range args {
				if _, err := a.image(inv, name); err != nil && known.Images[name] == nil {
					return err
				}
			}
			specs := map[string]string{}
			for _, image := range inv.Images {
				specs[image.Name] = plan.Spec(image).Key()
			}
			records := report.VersionRecords(known, specs, args...)
			if len(records) == 0 && !a.quiet {
				fmt.Fprintln(a.stderr, "no versions are recorded: the first vsfleet image update does that")
			}
			return show(a, records, view.VersionTable)
		},
	}
}

// completeImages completes names of images of the inventory.
func (a *app) completeImages(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	inv, err := a.completing(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, image := range inv.Images {
		if !slices.Contains(args, image.Name) {
			names = append(names, image.Name)
		}
	}
	return startingWith("", names, text), cobra.ShellCompDirectiveNoFileComp
}
