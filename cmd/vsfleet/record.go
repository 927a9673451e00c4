package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vsfleet/vsfleet/fleet/history"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
)

// record prepares to record the run of a command line. The recorder begins with the
// first event of a run, after the settings are read.
func (a *app) record(ctx context.Context, args []string) {
	a.history.Context, a.history.Version = context.WithoutCancel(ctx), buildVersion()
	a.history.Args = args
	a.history.Inventory = func(ctx context.Context) report.InventoryRecord { return history.Describe(ctx, a.inventories) }
	a.history.Secrets = a.secrets
	a.access.Watch = a.history.Watch
}

// secrets returns the secrets of hosts. It also decrypts those that the command did not
// need, unless that takes a passphrase; all reports whether it has all secrets.
func (a *app) secrets(names []string) (values []string, all bool) {
	if a.loaded == nil {
		return nil, true
	}
	of := map[string]bool{}
	for _, name := range names {
		host, _, _ := strings.Cut(name, "/") // of a guest
		of[host] = true
	}
	hosts := slices.DeleteFunc(slices.Clone(a.loaded.Hosts), func(h *inventory.Host) bool { return !of[h.Name] })
	keys := a.access.Keys
	keys.Passphrase = nil
	err := keys.Open(a.history.Context, inventory.Sealed(hosts))
	return a.loaded.Secrets(), err == nil
}

// keeper reads the settings of the history.
func (a *app) keeper() error {
	k := &a.history.Keeper
	if err := history.CheckStore(k.Store); err != nil {
		return &usageError{err: fmt.Errorf("setting store: %w", err)}
	}
	var err error
	if k.Keep, err = history.ParseKeep(a.keep); err != nil {
		return &usageError{err: fmt.Errorf("setting keep: %w", err)}
	}
	k.Dir, err = history.DefaultDir()
	if err != nil {
		k.Store = "none" // without a home directory, as in an empty container
	}
	return nil
}

// recorded ends the record of a run, with the exit status of this program.
func (a *app) recorded(ctx context.Context, exit int, err error) {
	var status exitStatus
	if errors.As(err, &status) { // what failed has been reported, host by host
		err = nil
	}
	for _, warning := range a.history.End(ctx, exit, err) {
		message("warning: " + warning)
	}
}

// rerunHosts returns the hosts of a rerun among those that the command line selects.
func (a *app) rerunHosts(hosts []*inventory.Host) ([]*inventory.Host, error) {
	var list []*inventory.Host
	var missing []string
	for _, name := range a.only {
		i := slices.IndexFunc(hosts, func(h *inventory.Host) bool { return h.Name == name })
		if i < 0 {
			missing = append(missing, name)
			continue
		}
		list = append(list, hosts[i])
	}
	if a.over.limit != "" {
		within, err := a.loaded.Select(a.over.limit)
		if err != nil {
			return nil, &usageError{err: fmt.Errorf("--limit: %w", err)}
		}
		in := func(name string) bool {
			return slices.ContainsFunc(within, func(h *inventory.Host) bool { return h.Name == name })
		}
		list = slices.DeleteFunc(list, func(h *inventory.Host) bool { return !in(h.Name) })
		missing = slices.DeleteFunc(missing, func(name string) bool { return !in(name) })
		if len(list)+len(missing) == 0 {
			return nil, &usageError{err: fmt.Errorf("--limit %s leaves no host of the run: it was on %s", a.over.limit, nodeset.Fold(a.only))}
		}
	}
	if missing != nil {
		return nil, usage("run the command itself, with --limit")(
			fmt.Errorf("the inventory no longer has %s, or the command line no longer selects it", nodeset.Fold(missing)))
	}
	return list, nil
}

// overrides are flags of rerun itself, which override those of the command.
type overrides struct {
	limit, format  string
	quiet, noColor bool
	verbose        int
}

// rerunFlags returns the flags that rerun was given. Flags that only the command itself
// could have are refused.
func (a *app) rerunFlags(cmd *cobra.Command) (overrides, error) {
	over := overrides{limit: a.limit, quiet: a.quiet, noColor: a.noColor, verbose: a.verbose}
	var refused []string
	global := cmd.InheritedFlags()
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if global.Lookup(f.Name) == nil {
			return
		}
		i := slices.IndexFunc(a.origins, func(s report.SettingRecord) bool { return s.Name == f.Name })
		switch {
		case i >= 0 && a.origins[i].Origin != "--"+f.Name: // a setting
		case f.Name == "output":
			over.format = a.format
		case !slices.Contains([]string{"limit", "quiet", "no-color", "verbose"}, f.Name):
			refused = append(refused, "--"+f.Name)
		}
	})
	if refused != nil {
		return over, usage("run the command itself with other flags")(
			fmt.Errorf("%s: rerun repeats the command with its own flags", strings.Join(refused, ", ")))
	}
	return over, nil
}

// override applies the flags of a rerun.
func (a *app) override() {
	a.quiet, a.noColor, a.verbose = a.quiet || a.over.quiet, a.noColor || a.over.noColor, max(a.verbose, a.over.verbose)
}

// rerun runs a command line again, like a new vsfleet.
func (a *app) rerun(ctx context.Context, again history.Again, over overrides) error {
	if again.Dir != "" {
		if err := os.Chdir(again.Dir); err != nil {
			return fmt.Errorf("go to where the command was run: %w", err)
		}
	}
	if !a.quiet {
		within := ""
		if over.limit != "" {
			within = ", limited to " + view.Clean(over.limit)
		}
		message(fmt.Sprintf("in %s: vsfleet %s, on %s%s", view.Clean(again.Dir), view.CommandLine(again.Args), nodeset.Fold(again.Hosts), within))
	}
	b := &app{only: again.Hosts, over: over}
	b.access.Abort = a.access.Abort
	b.history.Of = again.Of
	if code := b.execute(ctx, again.Args); code != 0 {
		return exitStatus(code)
	}
	return nil
}
