package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

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
--inventory. It does not ask for values that are given by flags, and never overwrites a file.`,
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
			_, err = fmt.Fprintf(a.stderr, "%s is written. Next:\n\n  vsfleet ping     connect to the hosts\n  vsfleet check    show what they lack\n  vsfleet plan     show what would change\n  vsfleet apply    change it\n", path)
			return err
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&hosts, "host", nil, "`address` or DNS name of a host; may be given several times")
	f.StringVar(&first.Release, "release", "trixie", "`release` of Debian or Ubuntu for guests")
	f.StringVar(&first.Guest, "guest", "www", "`name` of the first guest, one on each host")
	f.StringArrayVar(&ports, "port", nil, "`port` of the guest on its host's address, as 80 or 53/udp; none: a private network")
	return cmd
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
	words := func(to *[]string) func(string) { return func(s string) { *to = fields(s) } }
	word := func(to *string) func(string) { return func(s string) { *to = s } }
	in := bufio.NewReader(os.Stdin)
	for _, q := range []struct {
		flag, text, usual string
		set               func(string)
	}{
		{"host", "Hosts, by address or DNS name, separated by spaces", "", words(&first.Hosts)},
		{"user", "User to log in as; any other than root uses sudo", first.User, word(&first.User)},
		{"release", "Release of Debian or Ubuntu for guests", first.Release, word(&first.Release)},
		{"guest", "Name of the first guest, one on each host", first.Guest, word(&first.Guest)},
		{"port", "Its TCP ports on the hosts' addresses, or - for a private network", "80 443", words(&first.Ports)},
	} {
		if cmd.Flags().Changed(q.flag) {
			continue
		}
		answer, err := a.askLine(cmd.Context(), in, q.text, q.usual)
		if err != nil {
			return err
		}
		q.set(answer)
	}
	if slices.Equal(first.Ports, []string{"-"}) {
		first.Ports = nil
	}
	return nil
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
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}
