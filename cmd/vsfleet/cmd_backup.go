package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/backup"
	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

func (a *app) backupCommand() *cobra.Command {
	var dir string
	var stop bool
	cmd := &cobra.Command{
		Use:   "backup PATTERN --to DIR|HOST:DIR",
		Short: "Back up guests to a directory, here or on a host",
		Long: `Backup adds a backup of each guest, HOST/GUEST/TIME.backup, to a directory of this machine
or of a host that SFTP reaches: the guest's own files, its settings, and which image the files
lie on. The image itself, volumes and what else is mounted in the guest are not part of it.
Only files that have changed since the last backup of the guest are sent, and each content
is kept once in the directory, whichever guests and backups have it.

A guest that runs goes on meanwhile, and stands still while what it has changed in that time
is read again. With --stop, it is stopped for that and started again.`,
		Example: `  vsfleet guest backup lab1/www --to /srv/backup
  vsfleet guest backup --stop '*/db' --to backup@vault.example.net:/srv/backup
  vsfleet guest backup list /srv/backup
  vsfleet guest backup prune /srv/backup --keep-daily 7 --keep-monthly 12`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if dir == "" {
				return usage("vsfleet guest backup %s --to DIR", args[0])(errors.New("--to: want the directory for the backups"))
			}
			guests, err := a.guests(ctx, args[0])
			if err != nil {
				return err
			}
			how := api.SendFrozen
			if stop {
				how = api.SendStopped
			}
			return a.withBackups(ctx, dir, backup.Make, func(store *backup.Store) error {
				var failed error
				progress := a.progress(len(guests))
				place := func(g inventory.Instance) string { return g.Host.Name + "/" + g.Guest.Name }
				hosts := a.access.Backup(ctx, guests, store, how, a.forks, a.note, follow(progress, place, &failed,
					func(_ int, r fanout.Result[inventory.Instance, string]) error {
						if r.Err != nil {
							return nil
						}
						_, err := fmt.Fprintln(a.stdout, view.Clean(backupPath(dir, r.Value)))
						return err
					}))
				progress.Close()
				if failed != nil {
					return failed
				}
				return a.recapOr(ctx, report.Run{Hosts: hosts}, "")
			})
		},
	}
	cmd.Flags().StringVar(&dir, "to", "", "`directory` for the backups, of this machine or as HOST:DIR")
	cmd.Flags().BoolVar(&stop, "stop", false, "stop running guests while what they have changed is read")
	cmd.AddCommand(a.backupListCommand(), a.backupCheckCommand(), a.backupPruneCommand())
	return cmd
}

// backupPath returns the name of a backup as restore takes it.
func backupPath(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// splitBackup splits the name of a backup, DIR/HOST/GUEST or DIR/HOST/GUEST/TIME.backup.
func splitBackup(path string) (dir, name string, err error) {
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	n := 2
	if strings.HasSuffix(path, ".backup") {
		n = 3
	}
	if len(parts) == n && !strings.Contains(parts[0], ":") {
		return ".", strings.Join(parts, "/"), nil
	}
	if len(parts) < n+1 {
		return "", "", usage("name it as vsfleet guest backup list shows it")(fmt.Errorf("%q is not DIR/HOST/GUEST/TIME.backup, nor DIR/HOST/GUEST for the last one", path))
	}
	return cmp.Or(strings.Join(parts[:len(parts)-n], "/"), "/"), strings.Join(parts[len(parts)-n:], "/"), nil
}

// withBackups calls use with a directory of backups.
func (a *app) withBackups(ctx context.Context, dir string, open func(context.Context, backup.Place) (*backup.Store, error), use func(*backup.Store) error) error {
	if strings.Contains(dir, ":") { // it may name a host
		inv, err := a.inventory(ctx)
		if err != nil {
			return err
		}
		a.access.Hosts = inv.Hosts
	}
	store, err := a.access.Backups(ctx, dir, open)
	if err != nil {
		return err
	}
	return errors.Join(use(store), store.Close())
}

func (a *app) restoreCommand() *cobra.Command {
	var to, file string
	var start, archive bool
	cmd := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Make a guest from a backup, or print one file of it",
		Long: `Restore makes the guest of a backup, DIR/HOST/GUEST/TIME.backup, on the host that it came
from or another one, under its own name or another one. DIR/HOST/GUEST is the last backup of
that guest. If the inventory has the guest there, it gets the inventory's settings, else those
of the backup. If the host lacks the image, another host of the inventory must have it. A
guest that exists is not replaced.

With --file, restore prints a file of the backup, and with --tar all its files as a tar
archive; no host is asked then.`,
		Example: `  vsfleet guest restore /srv/backup/lab1/www --start
  vsfleet guest restore --to lab2/www2 vault:/srv/backup/lab1/www/20260201T031500Z.backup
  vsfleet guest restore --file /etc/passwd /srv/backup/lab1/www >passwd
  vsfleet guest restore --tar /srv/backup/lab1/www | tar -t`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			dir, name, err := splitBackup(args[0])
			if err != nil {
				return err
			}
			return a.withBackups(ctx, dir, backup.Open, func(store *backup.Store) error {
				name, err := store.Find(name)
				if err != nil {
					return &usageError{err: err}
				}
				from, err := store.Backup(ctx, name)
				if err != nil {
					return &usageError{err: err}
				}
				switch {
				case file != "":
					return from.File(ctx, file, a.stdout)
				case archive:
					return from.Tar(ctx, a.stdout)
				case to == "":
					to = from.Host + "/" + from.Guest.Name
				}
				inv, guest, err := a.placeOf(cmd, to)
				if err != nil {
					return err
				}
				h := a.access.Restore(ctx, inv, from, guest, fleet.RestoreOptions{Start: start, Progress: a.note})
				return a.recap(ctx, report.Run{Hosts: []report.Host{h}})
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`HOST/GUEST` to make (default: as in the backup)")
	cmd.Flags().StringVar(&file, "file", "", "print this `path` of the guest's, and restore nothing")
	cmd.Flags().BoolVar(&archive, "tar", false, "print the guest's own files as a tar archive, and restore nothing")
	cmd.Flags().BoolVar(&start, "start", false, "start the guest")
	cmd.MarkFlagsMutuallyExclusive("file", "tar", "to")
	cmd.MarkFlagsMutuallyExclusive("file", "tar", "start")
	a.lockWait(cmd)
	return cmd
}

// placeOf returns the one guest of HOST/GUEST, which may be nowhere yet.
func (a *app) placeOf(cmd *cobra.Command, place string) (*inventory.Inventory, inventory.Instance, error) {
	inv, err := a.inventory(cmd.Context())
	if err != nil {
		return nil, inventory.Instance{}, err
	}
	if !strings.Contains(place, "/") {
		return nil, inventory.Instance{}, usage("name it as HOST/GUEST")(fmt.Errorf("%q names no host", place))
	}
	guest, err := a.guest(cmd.Context(), place)
	a.unlisted = nil // it need not be there
	return inv, guest, err
}

func (a *app) moveCommand() *cobra.Command {
	var opt fleet.MoveOptions
	cmd := &cobra.Command{
		Use:   "move HOST/GUEST HOST",
		Short: "Move a guest with its files to another host",
		Long: `Move brings a guest to another host. Change the inventory first: the guest's on: must
name the new host, and no longer the old one.

The guest's own files are copied while it runs; then it is stopped, what has changed since is
copied, and it is started on the new host with the inventory's settings. If it does not
start there, or is not healthy, the old one is started again. If vsfleet is killed, run the
same command again. The old copy is set aside on its host, as GUEST.~TIME~. Volumes and what
else is mounted in the guest do not move.`,
		Example: `  vsfleet guest move lab1/www lab2
  vsfleet guest move --delete lab1/www lab2`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeGuests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			inv, from, err := a.placeOf(cmd, args[0])
			if err != nil {
				return err
			}
			_, to, err := a.placeOf(cmd, strings.TrimSuffix(args[1], "/"+from.Guest.Name)+"/"+from.Guest.Name)
			if err != nil {
				return err
			}
			if err := movable(from, to); err != nil {
				return err
			}
			opt.Progress = a.note
			h := a.access.Move(ctx, inv, from, to, opt)
			return a.recap(ctx, report.Run{Hosts: []report.Host{h}})
		},
	}
	cmd.Flags().BoolVar(&opt.Volumes, "leave-volumes", false, "move a guest that has volumes, without them")
	cmd.Flags().BoolVar(&opt.Delete, "delete", false, "delete the old copy once the new one is healthy")
	a.lockWait(cmd)
	return cmd
}

// movable returns an error if the next apply would undo a move.
func movable(from, to inventory.Instance) error {
	name := from.Guest.Name
	switch {
	case from.Host.Name == to.Host.Name:
		return &usageError{err: fmt.Errorf("%s is on %s", name, to.Host.Name)}
	case from.Guest.Image != "":
		return usage("an apply between the two would make an empty %s on %s", name, to.Host.Name)(
			fmt.Errorf("%s: the inventory wants %s on %s: change its on: to %s, then run this again", from.Guest.Pos, name, from.Host.Name, to.Host.Name))
	case to.Guest.Image == "":
		return usage("vsfleet inventory list --guests shows where guests should be")(
			fmt.Errorf("the inventory has no %s on %s: add that host to its on:, then run this again", name, to.Host.Name))
	}
	return nil
}
