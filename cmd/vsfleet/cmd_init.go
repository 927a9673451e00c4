package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/fleet/view"
	"github.com/vsfleet/vsfleet/inventory"
)

func (a *app) initCommand() *cobra.Command {
	var hosts, ports []string
	first := inventory.First{}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first inventory, after five questions",
		Long: `Init asks for the hosts, the user to log in as, the release of Debian or Ubuntu for guests,
and the name and ports of the first guest. Then it writes fleet.yml, or the file of
--inventory. It does not ask for values that are given by flags, and never overwrites a file.
Flags that say how to reach hosts, as --identity, --known-hosts and --jump, become its ssh block.`,
		Example: `  vsfleet init
  vsfleet init --host 203.0.113.11 --host web02.example.net --guest www --port 80 --port 443`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := defaultInventory
			switch {
			case len(a.inventories) == 1:
				path = a.inventories[0]
			case len(a.inventories) > 1:
				return &usageError{err: errors.New("--inventory: init writes one file")}
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				if err == nil {
					err = fmt.Errorf("%s already exists", path)
				}
				return usage("write another one with -i FILE")(err)
			}
			first.Hosts, first.Ports = hosts, ports
			var err error
			if first.SSH, err = a.firstSSH(); err != nil {
				return err
			}
			if err := a.askFirst(cmd, &first); err != nil {
				return err
			}
			text, err := first.Text()
			if err != nil {
				return &usageError{err: err}
			}
			if err := writeNew(path, text); err != nil {
				return err
			}
			return a.adviseNext(path)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&hosts, "host", nil, "`address` or DNS name of a host; may be given several times")
	f.StringVar(&first.Release, "release", "trixie", "`release` of Debian or Ubuntu for guests")
	f.StringVar(&first.Guest, "guest", "www", "`name` of the first guest, one on each host")
	f.StringArrayVar(&ports, "port", nil, "`port` of the guest on its host's address, as 80 or 53/udp; none: a private network")
	return cmd
}

// firstSSH returns the keys of the ssh block for the flags that say how to reach hosts.
// Paths are absolute, as the inventory may be in another directory.
func (a *app) firstSSH() (map[string]string, error) {
	keys := map[string]string{}
	for key, value := range map[string]string{
		"jump": a.access.Jump, "become_method": a.access.BecomeMethod, "host_key": a.hostKey,
	} {
		if value != "" {
			keys[key] = value
		}
	}
	for key, path := range map[string]string{"identity": a.access.Identity, "known_hosts": a.access.KnownHosts, "config": a.access.Config} {
		if path == "" {
			continue
		}
		if !strings.HasPrefix(path, "~/") && (key != "config" || path != "none") {
			var err error
			if path, err = filepath.Abs(path); err != nil {
				return nil, err
			}
		}
		keys[key] = path
	}
	return keys, nil
}

// adviseNext prints what to do with the inventory that was written.
func (a *app) adviseNext(path string) error {
	with := ""
	if path != defaultInventory {
		with = " -i " + view.CommandLine([]string{path})
	}
	next := ""
	for _, step := range [][2]string{
		{"trust", "accept the hosts' keys"}, {"ping", "connect to the hosts"}, {"check", "show what they lack"},
		{"plan", "show what would change"}, {"apply", "change it"},
	} {
		next += fmt.Sprintf("  vsfleet %-*s  %s\n", len("trust"+with), step[0]+with, step[1])
	}
	_, err := fmt.Fprintf(a.stderr, "%s is written. Next:\n\n%s", path, next)
	return err
}

// askFirst asks on the terminal for values that no flag gives.
func (a *app) askFirst(cmd *cobra.Command, first *inventory.First) error {
	first.User = "root"
	if user := a.access.User; user != "" {
		first.User = user
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		if len(first.Hosts) == 0 {
			return usage("name them: --host 203.0.113.11")(errors.New("no hosts are given, and there is no terminal to ask"))
		}
		return nil
	}
	in := bufio.NewReader(os.Stdin)
	for _, q := range []struct {
		flag, text, usual string
		set               func(*inventory.First, string)
	}{
		{"host", "Hosts, by address or DNS name, separated by spaces", "", func(f *inventory.First, s string) { f.Hosts = fields(s) }},
		{"user", "User to log in as; any other than root uses sudo", first.User, func(f *inventory.First, s string) { f.User = s }},
		{"release", "Release of Debian or Ubuntu for guests", first.Release, func(f *inventory.First, s string) { f.Release = s }},
		{"guest", "Name of the first guest, one on each host", first.Guest, func(f *inventory.First, s string) { f.Guest = s }},
		{"port", "Its TCP ports on the hosts' addresses, or - for a private network", "80 443", setPorts},
	} {
		if cmd.Flags().Changed(q.flag) {
			continue
		}
		for {
			answer, err := a.askLine(cmd.Context(), in, q.text, q.usual)
			if err != nil {
				return err
			}
			q.set(first, answer)
			probe := inventory.First{Hosts: []string{"192.0.2.1"}, User: "root", Release: "trixie", Guest: "www"}
			q.set(&probe, answer)
			if _, err = probe.Text(); err == nil {
				break
			}
			fmt.Fprintf(a.stderr, "%v\n", err)
		}
	}
	return nil
}

func setPorts(f *inventory.First, s string) {
	if f.Ports = fields(s); slices.Equal(f.Ports, []string{"-"}) {
		f.Ports = nil
	}
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' })
}

// askLine asks until it gets a line; an empty line means the default.
func (a *app) askLine(ctx context.Context, in *bufio.Reader, text, usual string) (string, error) {
	for {
		if usual == "" {
			fmt.Fprintf(a.stderr, "%s: ", text)
		} else {
			fmt.Fprintf(a.stderr, "%s [%s]: ", text, usual)
		}
		type line struct {
			text string
			err  error
		}
		read := make(chan line, 1)
		go func() {
			text, err := in.ReadString('\n')
			read <- line{strings.TrimSpace(text), err}
		}()
		select {
		case l := <-read:
			switch {
			case l.text != "":
				return l.text, nil
			case l.err != nil:
				return "", &usageError{err: errors.New("no answer: nothing was written")}
			case usual != "":
				return usual, nil
			}
			fmt.Fprintln(a.stderr, "an answer is needed: there is no default")
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}
