package main

import (
	"errors"
	"fmt"
	"path"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/backup"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/view"
)

// matching returns a function that reports whether a guest has a name like HOST/GUEST.
func matching(args []string) (func(host, guest string) bool, error) {
	if len(args) < 2 {
		return nil, nil
	}
	pattern := args[1]
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, usage("as in lab1/www, 'lab*/*'")(fmt.Errorf("%q: %w", pattern, err))
	}
	return func(host, guest string) bool {
		match, err := path.Match(pattern, host+"/"+guest)
		return err == nil && match
	}, nil
}

func (a *app) backupListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list DIR|HOST:DIR [HOST/GUEST]",
		Short: "List the backups in a directory",
		Long: `List shows the backups of a directory, those of each guest from the oldest on: SIZE is what
the guest's files hold, ADDED what the directory has grown by for the backup. HOST/GUEST may
have * and ? in it.`,
		Example: `  vsfleet guest backup list /srv/backup
  vsfleet guest backup list vault:/srv/backup 'lab1/*' -o json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			match, err := matching(args)
			if err != nil {
				return err
			}
			return a.withBackups(cmd.Context(), args[0], backup.Open, func(store *backup.Store) error {
				all, err := store.All(cmd.Context(), match)
				if err != nil {
					return err
				}
				if err := show(a, fleet.BackupRecords(all), view.BackupTable); err != nil {
					return err
				}
				return damaged(all)
			})
		},
	}
}

// damaged returns the exit status of a list in which some could not be read.
func damaged(all []backup.Listed) error {
	for _, one := range all {
		if one.Err != nil {
			return exitStatus(outcome.ExitFailed)
		}
	}
	return nil
}

func (a *app) backupCheckCommand() *cobra.Command {
	var contents bool
	cmd := &cobra.Command{
		Use:   "check DIR|HOST:DIR",
		Short: "Look for damage in a directory of backups",
		Long: `Check compares each backup with its digest and looks whether all its contents are there;
with --read-data, it reads and compares these too. The exit status is 2 if anything is damaged
or missing.`,
		Example: `  vsfleet guest backup check --read-data /srv/backup`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withBackups(cmd.Context(), args[0], backup.Open, func(store *backup.Store) error {
				c, err := store.Check(cmd.Context(), contents)
				if err != nil {
					return err
				}
				for _, text := range c.Damaged {
					if _, err := fmt.Fprintln(a.stdout, view.Clean(text)); err != nil {
						return err
					}
				}
				a.note(fmt.Sprintf("%d backups, %d contents (%s), %d of them in no backup", c.Backups, c.Objects, view.Bytes(uint64(c.Bytes)), c.Unused))
				if len(c.Damaged) > 0 {
					return exitStatus(outcome.ExitFailed)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&contents, "read-data", false, "read all contents")
	return cmd
}

func (a *app) backupPruneCommand() *cobra.Command {
	var keep backup.Keep
	var dry bool
	cmd := &cobra.Command{
		Use:   "prune DIR|HOST:DIR [HOST/GUEST]",
		Short: "Remove old backups, and what only they have",
		Long: `Prune removes the backups of each guest that no --keep flag keeps, and then the contents that
no backup has, also those that a killed vsfleet has left. Backups that cannot be read are kept.
HOST/GUEST may have * and ? in it: backups of other guests are kept.

The last backup of a day, week or month counts, in this machine's time zone.`,
		Example: `  vsfleet guest backup prune --check --keep-last 3 /srv/backup
  vsfleet guest backup prune --keep-daily 7 --keep-weekly 5 --keep-monthly 12 vault:/srv/backup`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			match, err := matching(args)
			if err != nil {
				return err
			}
			if keep.Last < 0 || keep.Daily < 0 || keep.Weekly < 0 || keep.Monthly < 0 || keep == (backup.Keep{}) {
				return usage("as in --keep-last 3")(errors.New("which backups are kept? want --keep-last, --keep-daily, --keep-weekly or --keep-monthly, and a number above 0"))
			}
			return a.withBackups(cmd.Context(), args[0], backup.OpenAlone, func(store *backup.Store) error {
				p, err := store.Prune(cmd.Context(), keep, match, dry)
				if err != nil {
					return err
				}
				for _, one := range p.Backups {
					if _, err := fmt.Fprintln(a.stdout, view.Clean(one.Name)); err != nil {
						return err
					}
				}
				verb := "removed"
				if dry {
					verb = "would remove"
				}
				a.note(fmt.Sprintf("%s %d backups and %d contents (%s)", verb, len(p.Backups), p.Objects, view.Bytes(uint64(p.Bytes))))
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&keep.Last, "keep-last", 0, "keep the last `N` backups of each guest")
	flags.IntVar(&keep.Daily, "keep-daily", 0, "keep one for each of the last `N` days that have any")
	flags.IntVar(&keep.Weekly, "keep-weekly", 0, "keep one for each of the last `N` weeks that have any")
	flags.IntVar(&keep.Monthly, "keep-monthly", 0, "keep one for each of the last `N` months that have any")
	checkFlag(flags, &dry, "only show what would be removed")
	return cmd
}
