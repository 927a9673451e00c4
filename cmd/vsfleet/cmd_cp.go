package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) copyCommand() *cobra.Command {
	var owner string
	cmd := &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy files to guests or from a guest",
		Long: `Cp copies a file or a directory to all guests that match a pattern, or from one guest. One
of SOURCE and DESTINATION is PATTERN:/PATH. The guests need not run, and need no
program for this. A directory is copied with everything below it, into DESTINATION if that
is a directory.

A file in a guest keeps the owner of the file that it replaces; a new file belongs to the
guest's root. Links that lead outside the copied directory of a guest are left out.`,
		Example: `  vsfleet guest cp nginx.conf 'web*/www:/etc/nginx/nginx.conf'
  vsfleet guest cp site/ lab1/www:/srv/
  vsfleet guest cp --owner www-data:www-data index.html lab1/www:/var/www/
  vsfleet guest cp lab1/www:/var/log/nginx .`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, fromPath, down := cutGuestPath(args[0])
			to, toPath, up := cutGuestPath(args[1])
			switch {
			case up == down:
				return usage("name a guest as HOST/GUEST:/PATH")(errors.New("one of SOURCE and DESTINATION must be in a guest, and the other on this machine"))
			case down && owner != "":
				return &usageError{err: errors.New("--owner is for files that are copied to guests")}
			case down:
				return a.copyFrom(cmd, from, fromPath, args[1])
			}
			return a.copyTo(cmd, args[0], to, toPath, owner)
		},
	}
	cmd.Flags().StringVar(&owner, "owner", "", "owner of files in the guest: `USER:GROUP`, names or ids of the guest")
	return cmd
}

// cutGuestPath splits PATTERN:/PATH. A local path with ":/" in it begins with "/" or ".".
func cutGuestPath(s string) (pattern, at string, ok bool) {
	i := strings.Index(s, ":/")
	if i <= 0 || s[0] == '/' || s[0] == '.' {
		return "", "", false
	}
	at = path.Clean(s[i+1:])
	if strings.HasSuffix(s, "/") && at != "/" {
		at += "/" // it must be a directory
	}
	return s[:i], at, true
}

func (a *app) copyTo(cmd *cobra.Command, local, pattern, to, owner string) error {
	ctx := cmd.Context()
	if user, group, ok := strings.Cut(owner, ":"); owner != "" && (!ok || user == "" || group == "") {
		return &usageError{err: fmt.Errorf("--owner %q: want USER:GROUP", owner)}
	}
	if _, err := os.Stat(local); err != nil {
		return &usageError{err: err}
	}
	guests, err := a.guests(ctx, pattern)
	if err != nil {
		return err
	}
	var failed error
	progress := a.progress(len(guests))
	place := func(g inventory.Instance) string { return g.Host.Name + "/" + g.Guest.Name }
	results := a.access.CopyTo(ctx, local, guests, to, owner, a.forks, a.note, follow(progress, place, &failed, func(int, fleet.Copied) error { return nil }))
	progress.Close()
	hosts := fleet.CopiedHosts(results)
	if a.quiet {
		return a.exit(ctx, hosts)
	}
	if err := view.Recap(a.stderr, hosts); err != nil {
		return err
	}
	view.Hints(a.stderr, hosts)
	return a.exitStatus(ctx, report.Outcomes(hosts))
}

func (a *app) copyFrom(cmd *cobra.Command, pattern, from, local string) error {
	ctx := cmd.Context()
	g, err := a.guest(ctx, pattern)
	if err != nil {
		return err
	}
	err = a.access.CopyFrom(ctx, g, from, local, a.note)
	return a.exit(ctx, []report.Host{report.HostOf(g.Host.Name+"/"+g.Guest.Name, g.Host.Address, outcome.Of(err), err)})
}

func (a *app) note(text string) { fmt.Fprintln(a.stderr, view.Clean(text)) }
