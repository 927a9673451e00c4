package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) trustCommand() *cobra.Command {
	var t trust
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Add host keys of new hosts to known_hosts",
		Long: `Trust reads the host keys of all hosts and of the jump hosts on the way, shows the
unknown ones in one table, and asks once whether to add them to known_hosts. Compare
the fingerprints with those on the hosts, for example in the provider's console:
ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub

Hosts behind a jump host are read once the jump host is trusted, in a second round. A
changed key is never replaced: it is reported with the command that removes the old
one.

Without a terminal, keys are added only if --accept lists their fingerprints, or with
--yes, which is safe only on a network without attackers.`,
		Example: `  vsfleet trust
  vsfleet trust -l 'web*' --accept SHA256:rDbwg6W/aSdZhKmTfYNcrosGCu3l3wKTXaqMTWEXhGc
  vsfleet trust -o csv                 show the hosts' keys`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.trust(cmd.Context(), t) },
	}
	cmd.Flags().BoolVarP(&t.yes, "yes", "y", false, "add all new keys without asking")
	cmd.Flags().StringSliceVar(&t.accept, "accept", nil, "add only keys with this `fingerprint` (SHA256:…); may be given several times")
	return cmd
}

// trust holds the flags of the command.
type trust struct {
	yes    bool
	accept []string
}

func (a *app) trust(ctx context.Context, t trust) error {
	if t.yes && t.accept != nil {
		return &usageError{err: errors.New("--yes and --accept: it is one or the other")}
	}
	_, hosts, err := a.selectHosts(ctx)
	if err != nil {
		return err
	}
	if err := a.readPasswords(ctx); err != nil {
		return err
	}
	keys, added, err := a.access.AcceptKeys(ctx, hosts, a.forks, func(fresh []fleet.HostKey) ([]fleet.HostKey, error) {
		return a.acceptKeys(ctx, fresh, t)
	})
	if keys == nil && err != nil {
		return err
	}
	printed := a.printKeys(ctx, keys, added, t)
	return cmp.Or(err, printed)
}

// acceptKeys returns the new keys that the flags or the operator accept.
func (a *app) acceptKeys(ctx context.Context, fresh []fleet.HostKey, t trust) ([]fleet.HostKey, error) {
	asks := !t.yes && t.accept == nil
	if t.accept != nil {
		fresh = slices.DeleteFunc(fresh, func(k fleet.HostKey) bool { return !slices.Contains(t.accept, k.Fingerprint) })
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	if asks || !a.quiet {
		records, _ := fleet.KeyReport(fresh, nil, false)
		if err := view.KeyTable(a.stderr, records); err != nil {
			return nil, err
		}
	}
	if !asks {
		return fresh, nil
	}
	return fresh, a.confirmKeys(ctx, fresh)
}

func (a *app) confirmKeys(ctx context.Context, fresh []fleet.HostKey) error {
	return a.confirm(ctx, question{
		text:       fmt.Sprintf("Are these the keys of your hosts? Add %d to %s?", len(fresh), knownHostsFiles(fresh)),
		no:         "nothing was added",
		noTerminal: newKeys(len(fresh)) + ", and there is no terminal to ask",
		hint:       "to add all of them, whatever they are: --yes; to add some by their fingerprints: --accept",
	})
}

// acceptUnknown adds host keys that are not known, by --host-key, before a run: all that
// somebody has to accept are shown in one table.
func (a *app) acceptUnknown(ctx context.Context, hosts []*inventory.Host) error {
	added, err := a.access.AcceptUnknown(ctx, hosts, a.forks, func(fresh []fleet.HostKey) error {
		records, _ := fleet.KeyReport(fresh, nil, false)
		if err := view.KeyTable(a.stderr, records); err != nil {
			return err
		}
		return a.confirmKeys(ctx, fresh)
	})
	if err == nil && added != nil && !a.quiet {
		records, _ := fleet.KeyReport(added, nil, false)
		if err = view.KeyTable(a.stderr, records); err == nil {
			message(fmt.Sprintf("added %s to %s", view.Count(len(added), "host key"), knownHostsFiles(added)))
		}
	}
	return err
}

func newKeys(n int) string {
	if n == 1 {
		return "1 host key is new"
	}
	return fmt.Sprintf("%d host keys are new", n)
}

func knownHostsFiles(keys []fleet.HostKey) string {
	var names []string
	for _, k := range keys {
		if !slices.Contains(names, k.File) {
			names = append(names, k.File)
		}
	}
	if len(names) > 1 {
		return fmt.Sprintf("%d files", len(names))
	}
	return view.Clean(names[0])
}

// printKeys prints what came of all keys.
func (a *app) printKeys(ctx context.Context, keys []fleet.HostKey, added map[string]bool, t trust) error {
	records, hosts := fleet.KeyReport(keys, added, t.accept != nil)
	known, fresh := 0, 0
	for _, r := range records {
		switch {
		case r.Error != "":
		case r.Added:
			fresh++
		case r.State == string(fleet.KeyKnown):
			known++
		}
	}
	if a.output != view.AsTable {
		if err := view.Write(a.stdout, a.output, records, nil); err != nil {
			return err
		}
	} else if !a.quiet && known+fresh > 0 {
		fmt.Fprintf(a.stderr, "host keys: %d known, %d added\n", known, fresh)
	}
	return a.exit(ctx, hosts)
}
