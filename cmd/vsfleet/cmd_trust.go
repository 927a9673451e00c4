package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
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
  vsfleet trust -o csv                 which keys do the hosts show`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.trust(cmd, t) },
	}
	cmd.Flags().BoolVarP(&t.yes, "yes", "y", false, "add all new keys without asking")
	cmd.Flags().StringSliceVar(&t.accept, "accept", nil, "add only keys with this `fingerprint` (SHA256:…); may be given several times")
	return cmd
}

// trust is which keys are added.
type trust struct {
	yes    bool
	accept []string
}

// trust goes on while keys that are added let it see others.
func (a *app) trust(cmd *cobra.Command, t trust) error {
	ctx := cmd.Context()
	if t.yes && t.accept != nil {
		return &usageError{err: errors.New("--yes and --accept: it is one or the other")}
	}
	_, hosts, err := a.chosen(ctx)
	if err != nil {
		return err
	}
	added := map[string]bool{} // by the key's host and address
	for {
		keys, err := a.access.HostKeys(ctx, hosts, a.forks)
		if err != nil {
			return err
		}
		fresh := slices.DeleteFunc(slices.Clone(keys), func(k fleet.HostKey) bool { return k.State != fleet.KeyNew })
		chosen := fresh
		if t.accept != nil {
			chosen = slices.DeleteFunc(slices.Clone(fresh), func(k fleet.HostKey) bool { return !slices.Contains(t.accept, k.Fingerprint) })
		}
		var refused error
		asks := !t.yes && t.accept == nil
		if len(chosen) > 0 && (asks || !a.quiet) {
			if err := a.keyTable(chosen); err != nil {
				return err
			}
		}
		if len(chosen) > 0 && asks {
			refused = a.ask(ctx, question{
				text: fmt.Sprintf("Are these the keys of your hosts? Add %d to %s?", len(chosen), files(chosen)),
				no:   "nothing was added",
				mute: fmt.Sprintf("%d host keys are new, and there is no terminal to ask", len(chosen)),
				hint: "to add all of them, whatever they are: --yes; to add some by their fingerprints: --accept",
			})
		}
		if len(chosen) > 0 && refused == nil {
			if err := a.access.Trust(chosen); err != nil {
				return err
			}
			for _, k := range chosen {
				added[k.Door()] = true
			}
			if slices.ContainsFunc(keys, func(k fleet.HostKey) bool { return k.State == fleet.KeyHidden }) {
				continue
			}
		}
		err = a.printKeys(ctx, keys, added, t)
		if refused != nil {
			err = refused
		}
		return err
	}
}

func files(keys []fleet.HostKey) string {
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

// keyTable shows keys to somebody who is to accept them.
func (a *app) keyTable(keys []fleet.HostKey) error {
	records, _ := fleet.KeyReport(keys, nil, false)
	return view.KeyTable(a.stderr, records)
}

// printKeys prints what came of all keys.
func (a *app) printKeys(ctx context.Context, keys []fleet.HostKey, added map[string]bool, t trust) error {
	records, hosts := fleet.KeyReport(keys, added, t.accept != nil)
	known, new := 0, 0
	for _, r := range records {
		switch {
		case r.Error != "":
		case r.Added:
			new++
		case r.State == string(fleet.KeyKnown):
			known++
		}
	}
	if a.output != view.AsTable {
		if err := view.Write(a.stdout, a.output, records, nil); err != nil {
			return err
		}
	} else if !a.quiet && known+new > 0 {
		fmt.Fprintf(a.stderr, "host keys: %d known, %d added\n", known, new)
	}
	return a.told(ctx, hosts, report.Outcomes(hosts))
}
