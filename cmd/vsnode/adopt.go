package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/internal/vsyntax"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// adopt takes over a guest of util-vserver's.
func (v verb) adopt(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("adopt", flag.ContinueOnError)
	dry := fs.Bool("dry-run", false, "")
	yes := fs.Bool("yes", false, "")
	var a guest.Adoption
	fs.BoolVar(&a.KeepOwners, "keep-owners", false, "")
	fs.Func("port", "", func(s string) (err error) {
		a.Ports, err = ports(a.Ports, s)
		return err
	})
	err := parse(fs, args, "adopt")
	ask := !*dry && !*yes && !v.silent
	switch {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return v.wrong("adopt: %v", err)
	case fs.NArg() > 0:
		return v.takesNo("adopt", fs.Arg(0))
	case ask && !v.alone:
		return v.wrong("adopt asks about each guest: several take --dry-run or --yes")
	}
	in := bufio.NewReader(os.Stdin)
	if ask {
		a.AskPorts = func(addresses []string) ([]port.Range, error) {
			fmt.Printf("Ports of %s that it may bind, as 80/tcp 443/tcp (none: Enter): ", strings.Join(addresses, ", "))
			line, err := in.ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			return ports(nil, line)
		}
	}
	refused := false
	a.Agree = func(p guest.AdoptionPlan) (bool, error) {
		v.showAdoption(p)
		if !ask || len(p.Changes) == 0 {
			return !*dry, nil
		}
		fmt.Print("Continue? (y/N) ")
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		answer := strings.ToLower(strings.TrimSpace(line))
		refused = answer != "y" && answer != "yes"
		return !refused, nil
	}
	outcome, err := v.h.Guests.Adopt(ctx, v.name, a)
	switch {
	case err != nil:
		return err
	case refused:
		return exitUsage
	case outcome == api.Changed:
		v.say("Vserver '%s' is taken over: vserver %s start", v.name, v.name)
	}
	return nil
}

// showAdoption prints a plan to standard output.
func (v verb) showAdoption(p guest.AdoptionPlan) {
	if v.silent {
		return
	}
	show := func(format string, args ...any) {
		fmt.Fprintln(v.out, printable.Lines(fmt.Sprintf(format, args...)))
	}
	switch {
	case p.GoesOn:
		show("Goes on with a takeover that was interrupted:")
	case len(p.Changes) == 0:
		show("Nothing has to be changed: vserver %s start", v.name)
	default:
		show("Changes:")
	}
	for _, line := range p.Changes {
		show("  %s", line)
	}
	if p.Backup != "" {
		show("  the old configuration is kept as %s", p.Backup)
	}
	if len(p.Stays) > 0 {
		show("Has no effect, and stays:")
	}
	for _, line := range p.Stays {
		show("  %s", line)
	}
}

// ports reads a list of ports behind those there are.
func ports(have []port.Range, text string) ([]port.Range, error) {
	for _, w := range vsyntax.Words(text) {
		r, err := port.Parse(w.Text)
		if err != nil {
			return have, err
		}
		have = append(have, r)
	}
	return have, nil
}
