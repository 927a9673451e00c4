package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vsfleet/vsfleet/fleet"
	"github.com/vsfleet/vsfleet/fleet/history"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/versions"
	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/inventory/program"
	"github.com/vsfleet/vsfleet/lab"
	"github.com/vsfleet/vsfleet/node/api"
)

// app holds what all commands share: the flags of the root command, and the values
// made of them.
type app struct {
	inventories []string
	limit       string
	limits      int // times that --limit was given
	forks       int
	format      string
	noColor     bool
	hostKey     string
	passwords   passwords
	quiet       bool
	verbose     int
	access      fleet.Access

	origins      []report.SettingRecord // the settings, and where each came from
	confirmHosts int                    // number of hosts that are changed without a question; 0: any

	history  history.Recorder
	keep     string               // the setting
	only     []string             // hosts that a rerun is limited to; nil: none
	over     overrides            // of a rerun
	loaded   *inventory.Inventory // the inventory, once it is loaded
	versions *versions.Keeper     // of its images, once it is loaded

	unlisted       error  // why the guest that a pattern names may be a mistake
	typed          string // the command line, as far as it names a command
	prepared       bool   // flags are read: later errors are not cobra's
	output         view.Format
	stdout, stderr view.Output
	shown          *view.Progress // on the terminal; nil: none
}

// register adds the flags that all commands have.
func (a *app) register(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringArrayVar(&a.access.Keys.Files, "age-identity", nil, "age or SSH private key `file` that decrypts secrets of the inventory (default ~/.ssh/id_ed25519, ~/.ssh/id_rsa)")
	f.StringArrayVarP(&a.inventories, "inventory", "i", nil, "inventory: `file`, directory, program or list of hosts (a,b,), of vsfleet or Ansible; may be given several times (default fleet.yml, else the lab's)")
	f.VarP(counted{&a.limit, &a.limits}, "limit", "l", "limit to hosts matching this `pattern`: web*, web:!web02, site=fra, ~regex, @file; join several with a comma")
	f.IntVarP(&a.forks, "forks", "f", 32, "number of hosts to work on at a time")
	f.StringVarP(&a.format, "output", "o", string(view.AsTable), "`format` of standard output: "+strings.Join(view.Formats(), ", "))
	f.StringVarP(&a.access.User, "user", "u", "", "log in as this user (overrides the inventory)")
	f.StringVar(&a.access.Identity, "identity", "", "private key `file` (overrides the inventory)")
	f.StringVar(&a.access.Identity, "private-key", "", "alias of --identity, as in Ansible")
	f.StringVar(&a.access.KnownHosts, "known-hosts", "", "known_hosts `file` (overrides the inventory)")
	f.StringVarP(&a.access.Config, "ssh-config", "F", "", "ssh_config `file` to use instead of the user's, or none (overrides the inventory)")
	f.StringVar(&a.hostKey, "host-key", "", "what to do about unknown host keys: `"+strings.Join(fleet.HostKeyPolicies(), ", ")+"` (default the inventory's, else ssh_config's, else ask; strict without a terminal)")
	f.StringVarP(&a.access.Jump, "jump", "J", "", "connect through this jump host: `[user@]host[:port]`, a host of the inventory, or none (overrides the inventory)")
	f.BoolVarP(&a.passwords.ask, "ask-pass", "k", false, "ask for the password of the user, once for all hosts")
	f.BoolVarP(&a.passwords.askBecome, "ask-become-pass", "K", false, "ask for the password of sudo or doas, once for all hosts")
	f.StringVar(&a.passwords.file, "password-file", "", "read the password of the user from the first line of this `file`")
	f.StringVar(&a.passwords.becomeFile, "become-password-file", "", "read the password of sudo or doas from the first line of this `file`")
	f.StringVar(&a.access.BecomeMethod, "become-method", "", "become root by `sudo or doas` (overrides the inventory; default: what the host has)")
	f.BoolVarP(&a.access.Become, "become", "b", false, "become root with sudo or doas (overrides the inventory)")
	durationVar(f, &a.access.ConnectTimeout, "connect-timeout", 0, "time to wait for a host's SSH server (default ssh_config's, else 10s)")
	durationVar(f, &a.access.Timeout, "timeout", 0, "give up on a host after this time (default 5m for an answer, none for a command)")
	f.StringVar(&a.access.Registry.CA, "registry-ca", "", "trust the certificates in this `file` too, for registries of images")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print only data and errors")
	f.CountVarP(&a.verbose, "verbose", "v", "show progress messages of hosts; -vv: also how long each state of a host takes")
	f.BoolVar(&a.noColor, "no-color", false, "disable colours (also: NO_COLOR=1)")
	f.Lookup("private-key").Hidden = true
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(view.Formats(), cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("host-key", cobra.FixedCompletions(fleet.HostKeyPolicies(), cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("become-method", cobra.FixedCompletions(becomeMethods, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("limit", a.completeHosts))
	must(cmd.RegisterFlagCompletionFunc("user", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("jump", cobra.NoFileCompletions))
}

// lockWait adds the flag of commands that change hosts.
func (a *app) lockWait(cmd *cobra.Command) {
	durationVar(cmd.Flags(), &a.access.LockWait, "lock-wait", time.Minute, "time to wait for another run that is changing a host (0: do not wait)")
}

// changesGuests adds the flags of commands that change guests.
func (a *app) changesGuests(cmd *cobra.Command) {
	a.lockWait(cmd)
	durationVar(cmd.Flags(), &a.access.ConfirmWithin, "confirm-timeout", time.Minute,
		"time for a new connection to a host whose network has changed; without one, the host undoes the change (0: never)")
}

// must panics on errors that only a bug in this program can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// checkFlag adds -C, as Ansible has it, and the names that other tools have for it.
func checkFlag(f *pflag.FlagSet, check *bool, text string) {
	f.BoolVarP(check, "check", "C", false, text)
	f.BoolVarP(check, "dry-run", "n", false, "alias of --check")
	must(f.MarkHidden("dry-run"))
}

// prepare reads flags, environment and settings files.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	a.prepared = true
	a.override()
	a.stdout, a.stderr = view.Open(os.Stdout, a.noColor), view.Open(os.Stderr, a.noColor)
	a.access.Keys.Passphrase = a.passphrase()
	asked := cmd.Flags().Changed("output") || a.over.format != "" // a setting does not count: it is for commands that have data
	if err := a.settings(cmd.Root().PersistentFlags()); err != nil {
		return err
	}
	a.access.HostKey, a.access.CanAsk = fleet.HostKeyPolicy(a.hostKey), a.canAsk()
	var err error
	if a.output, err = view.ParseFormat(cmp.Or(a.over.format, a.format)); err != nil {
		return &usageError{err: err}
	}
	if _, prose := cmd.Annotations[prose]; prose && a.output != view.AsTable {
		if asked {
			return &usageError{err: fmt.Errorf("%s has no output in format %s", strings.TrimPrefix(cmd.CommandPath(), "vsfleet "), a.output)}
		}
		a.output = view.AsTable
	}
	switch {
	case a.quiet && a.verbose > 0:
		return &usageError{err: errors.New("--quiet and --verbose: it is one or the other")}
	case cmd.Flags().Changed("limit") && a.limit == "":
		return &usageError{err: errors.New("--limit is empty: name hosts, or leave it out for all")}
	case a.limits > 1:
		return usage("join patterns with a comma: -l web,db")(errors.New("--limit is given more than once"))
	case slices.Contains(a.inventories, ""):
		return &usageError{err: errors.New("--inventory is empty: name a file")}
	case a.hostKey != "" && !slices.Contains(fleet.HostKeyPolicies(), a.hostKey):
		return &usageError{err: fmt.Errorf("--host-key %s: want %s", a.hostKey, strings.Join(fleet.HostKeyPolicies(), ", "))}
	case a.access.BecomeMethod != "" && !slices.Contains(becomeMethods, a.access.BecomeMethod):
		return &usageError{err: fmt.Errorf("--become-method %s: want sudo or doas", a.access.BecomeMethod)}
	case a.forks < 1:
		return &usageError{err: fmt.Errorf("--forks %d: at least one host must be worked on at once", a.forks)}
	case a.access.ConnectTimeout < 0, a.access.ConnectTimeout == 0 && cmd.Flags().Changed("connect-timeout"):
		return &usageError{err: fmt.Errorf("--connect-timeout %s: it must be more than nothing", a.access.ConnectTimeout)}
	}
	if cmd.Flags().Changed("timeout") && a.access.Timeout <= 0 {
		return &usageError{err: fmt.Errorf("--timeout %s: it must be more than nothing", a.access.Timeout)}
	}
	if a.access.LockWait < 0 {
		return &usageError{err: fmt.Errorf("--lock-wait %s: it cannot be less than nothing", a.access.LockWait)}
	}
	return notEmpty(cmd)
}

var becomeMethods = []string{"sudo", "doas"}

const defaultInventory = "fleet.yml"

// programTimeout is the time that an inventory program has to answer.
const programTimeout = time.Minute

// inventory loads the inventory and prints its warnings.
func (a *app) inventory(ctx context.Context) (*inventory.Inventory, error) {
	inv, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range inv.Warnings {
		if !a.quiet {
			fmt.Fprintf(a.stderr, "vsfleet: warning: %v\n", w)
		}
	}
	return inv, nil
}

// load loads the inventories of -i, or that of nearInventory.
func (a *app) load(ctx context.Context) (*inventory.Inventory, error) {
	if len(a.inventories) == 0 {
		path, err := nearInventory(ctx)
		if err != nil {
			return nil, err
		}
		a.inventories = []string{path}
	}
	// Of a large inventory most of what is allocated is in use to the end: collecting it
	// again and again is a third of the time, with 10,000 guests.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	inv, err := inventory.Loader{Run: program.Runner(ctx, programTimeout)}.Load(a.inventories...)
	if err != nil {
		return nil, err
	}
	a.access.Hosts, a.loaded = inv.Hosts, inv
	if a.versions, err = versions.Open(versions.Path(inv), fleet.Owner()); err != nil {
		return nil, &usageError{err: err}
	}
	a.access.Versions = a.versions
	return inv, nil
}

// nearInventory returns the path of fleet.yml in this directory, or else of the
// inventory of the lab.
func nearInventory(ctx context.Context) (string, error) {
	switch _, err := os.Stat(defaultInventory); {
	case err == nil:
		return defaultInventory, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	l, err := lab.Status(ctx, lab.Options{Dir: labDir()})
	switch {
	case err == nil:
		return l.Inventory, nil
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
		return "", err
	}
	dir, err := filepath.Abs(".")
	if err != nil {
		return "", err
	}
	return "", usage("name an inventory with -i, or make a practice fleet: vsfleet lab up")(
		fmt.Errorf("there is no %s in %s, and no lab on this machine", defaultInventory, dir))
}

// labDir returns the directory of the lab; VSFLEET_LAB overrides it.
func labDir() string { return cmp.Or(os.Getenv("VSFLEET_LAB"), lab.DefaultDir) }

// hosts returns the hosts that -l selects, for commands that connect to them: what on
// this machine would prevent that is an error before any host is asked.
func (a *app) hosts(ctx context.Context) (*inventory.Inventory, []*inventory.Host, error) {
	inv, hosts, err := a.selectHosts(ctx)
	if err == nil {
		err = a.verify(ctx, hosts)
	}
	return inv, hosts, err
}

func (a *app) verify(ctx context.Context, hosts []*inventory.Host) error {
	if err := a.readPasswords(ctx); err != nil {
		return err
	}
	err := a.access.Verify(ctx, hosts)
	if a.verbose > 0 {
		for _, note := range a.access.Notes() {
			message(note)
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &usageError{err: err}
	}
	return a.acceptUnknown(ctx, hosts)
}

// selectHosts returns the hosts of the inventory that -l selects, limited to those of a
// rerun.
func (a *app) selectHosts(ctx context.Context) (*inventory.Inventory, []*inventory.Host, error) {
	inv, hosts, err := a.limitedHosts(ctx)
	if err == nil && a.only != nil {
		hosts, err = a.rerunHosts(hosts)
	}
	return inv, hosts, err
}

func (a *app) limitedHosts(ctx context.Context) (*inventory.Inventory, []*inventory.Host, error) {
	inv, err := a.inventory(ctx)
	if err != nil || a.limit == "" {
		if err == nil && len(inv.Hosts) == 0 {
			err = &usageError{err: errors.New("the inventory has no hosts")}
		}
		if err != nil {
			return nil, nil, err
		}
		return inv, inv.Hosts, nil
	}
	hosts, err := inv.Select(a.limit)
	if err != nil {
		return nil, nil, &limitError{err}
	}
	return inv, hosts, nil
}

// limitError is returned for a --limit that selects no hosts.
type limitError struct{ err error }

func (e *limitError) Error() string { return "--limit: " + e.err.Error() }
func (e *limitError) Unwrap() error { return e.err }

// guests returns the guests that a pattern and -l select, for commands that connect
// to their hosts.
func (a *app) guests(ctx context.Context, pattern string) ([]inventory.Instance, error) {
	guests, err := a.selectGuests(ctx, pattern)
	if err != nil {
		return nil, err
	}
	var hosts []*inventory.Host
	for _, g := range guests {
		hosts = append(hosts, g.Host)
	}
	return guests, a.verify(ctx, hosts)
}

func (a *app) selectGuests(ctx context.Context, pattern string) ([]inventory.Instance, error) {
	inv, hosts, err := a.selectHosts(ctx)
	if err != nil {
		return nil, err
	}
	guests, err := inv.SelectGuests(pattern)
	if err != nil {
		if guests, a.unlisted = unlistedGuest(inv, pattern), err; guests == nil {
			return nil, usage("vsfleet guest status shows all guests; one that the inventory lacks is named as HOST/GUEST")(err)
		}
	}
	guests = slices.DeleteFunc(guests, func(g inventory.Instance) bool { return !slices.Contains(hosts, g.Host) })
	if len(guests) == 0 {
		return nil, usage("vsfleet inventory list --guests shows where it is")(
			fmt.Errorf("no guest of %q is on the hosts of --limit %s", pattern, a.limit))
	}
	return guests, nil
}

// unlistedGuest returns the guest of a pattern that names one guest by its host,
// HOST/GUEST: the host may have it although the inventory does not.
func unlistedGuest(inv *inventory.Inventory, pattern string) []inventory.Instance {
	cut := strings.LastIndexByte(pattern, '/')
	if cut < 0 || !guestName.MatchString(pattern[cut+1:]) {
		return nil
	}
	i := slices.IndexFunc(inv.Hosts, func(h *inventory.Host) bool { return h.Name == pattern[:cut] })
	if i < 0 {
		return nil
	}
	return []inventory.Instance{{Host: inv.Hosts[i], Guest: &inventory.Guest{Guest: api.Guest{Name: pattern[cut+1:]}}}}
}

var guestName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// guest returns the one guest that a pattern selects.
func (a *app) guest(ctx context.Context, pattern string) (inventory.Instance, error) {
	guests, err := a.selectGuests(ctx, pattern)
	switch {
	case err != nil:
		return inventory.Instance{}, err
	case len(guests) > 1:
		var names []string
		for _, g := range guests[:min(3, len(guests))] {
			names = append(names, g.Host.Name+"/"+g.Guest.Name)
		}
		return inventory.Instance{}, usage("name one: %s", strings.Join(names, ", "))(
			fmt.Errorf("%q is %d guests, this is for one", pattern, len(guests)))
	}
	return guests[0], a.verify(ctx, []*inventory.Host{guests[0].Host})
}

// prose annotates commands without data: they refuse -o and ignore its setting.
const prose = "prose"

// noData annotates a command with prose.
func noData(cmd *cobra.Command) *cobra.Command {
	cmd.Annotations = map[string]string{prose: ""}
	return cmd
}
