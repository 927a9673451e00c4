package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vsfleet/vsfleet/internal/buildmethod"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// buildFlags are util-vserver's options of build that mean something here, and
// ours.
type buildFlags struct {
	method, netdev, mask, prefix string
	interfaces, ports, forwards  list
	nat, force                   bool
	g                            api.Guest
	args                         []string
}

func parseBuild(name string, args []string) (buildFlags, error) {
	b := buildFlags{g: api.Guest{Name: name}}
	fs := flag.NewFlagSet("build", flag.ContinueOnError)
	self := ""
	fs.StringVar(&self, "n", "", "") // util-vserver passes the name on by it
	fs.StringVar(&b.method, "m", "", "")
	fs.IntVar(&b.g.Context, "context", 0, "")
	fs.StringVar(&b.g.Hostname, "hostname", "", "")
	fs.Var(&b.interfaces, "interface", "")
	fs.StringVar(&b.netdev, "netdev", "", "")
	fs.StringVar(&b.mask, "netmask", "", "")
	fs.StringVar(&b.prefix, "netprefix", "", "")
	fs.Var(&b.ports, "port", "")
	fs.BoolVar(&b.nat, "nat", false, "")
	fs.Var(&b.forwards, "forward", "")
	fs.StringVar(&b.g.Init.Style, "initstyle", "", "")
	fs.Var((*list)(&b.g.Init.Command), "initcommand", "")
	fs.BoolVar(&b.force, "force", false, "")
	if err := parse(fs, args, "build"); err != nil {
		return buildFlags{}, err
	}
	if self != "" && self != name {
		return b, fmt.Errorf("option -n: the guest is %s already", name)
	}
	b.args = fs.Args()
	if b.method == "" {
		return b, errors.New("no build method given (-m debootstrap, -m template …; vserver NAME build --help lists them)")
	}
	if len(b.g.Init.Command) > 0 {
		b.g.Init.Style = "command"
	}
	return b, b.network()
}

// network turns the options into what the guest may use.
func (b *buildFlags) network() error {
	n := &b.g.Network
	for _, s := range b.ports {
		r, err := port.Parse(s)
		if err != nil {
			return err
		}
		n.Ports = append(n.Ports, r)
	}
	for _, s := range b.forwards {
		f, err := port.ParseForward(s)
		if err != nil {
			return err
		}
		n.Forwards = append(n.Forwards, f)
	}
	if b.nat {
		if len(b.interfaces) > 0 {
			return errors.New("--nat and --interface: a guest has a private network or addresses of the host's")
		}
		n.Mode = api.ModeNAT
		return nil
	}
	if len(b.interfaces) == 0 {
		return errors.New("no --interface ADDRESS given (or --nat)")
	}
	for i, text := range b.interfaces {
		addr, dev, err := b.parseInterface(text)
		if err != nil {
			return err
		}
		mode := api.ModeOwn
		if dev == "nodev" {
			mode, dev = api.ModeShared, ""
		}
		if i > 0 && (mode != n.Mode || dev != n.Dev) {
			return fmt.Errorf("interface %q: all addresses of a guest go onto one device, or all are shared (nodev)", text)
		}
		n.Mode, n.Dev = mode, dev
		n.Addresses = append(n.Addresses, addr)
	}
	return nil
}

// parseInterface reads [NAME=][DEV:]ADDRESS[/PREFIX|/MASK]. The name was a
// label of the device's alias, which no program needs any more.
func (b *buildFlags) parseInterface(text string) (netip.Prefix, string, error) {
	rest := text
	if _, after, ok := strings.Cut(rest, "="); ok {
		rest = after
	}
	dev := b.netdev
	host, size, sized := strings.Cut(rest, "/")
	if _, err := netip.ParseAddr(host); err != nil {
		before, after, ok := strings.Cut(host, ":")
		if !ok {
			return netip.Prefix{}, "", fmt.Errorf("interface %q: %q is not an address", text, host)
		}
		dev, host = before, after
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, "", fmt.Errorf("interface %q: %q is not an address", text, host)
	}
	if !sized {
		size = b.prefix
		if size == "" {
			size = b.mask
		}
	}
	bits, err := guest.PrefixLength(addr, size)
	if err != nil {
		return netip.Prefix{}, "", fmt.Errorf("interface %q: %w", text, err)
	}
	if dev == "" {
		fmt.Fprintf(os.Stderr, "No device specified for interface '%s'; setting 'nodev'\n", host)
		dev = "nodev"
	}
	return netip.PrefixFrom(addr, bits), dev, nil
}

func (v verb) build(ctx context.Context, args []string) error {
	b, err := parseBuild(v.name, args)
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	spec := api.ImageSpec{Name: v.name, Method: b.method, Args: b.args}
	if b.method != "" { // a method that is refused needs no other option
		err = cmp.Or(v.h.Images.CheckSpec(spec), err)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "vserver: build: %v\n", err)
		return exitError(1)
	}
	if n := b.g.Network; n.Mode == api.ModeShared && len(n.Ports) == 0 {
		v.warn("no --port given: it can bind none on its shared addresses (later: interfaces/ports)")
	}
	// What is wrong with the guest is found before a minute of building.
	on, err := v.h.Guests.Running(v.name)
	old := !errors.Is(err, guest.ErrNoGuest)
	switch {
	case err != nil && old:
		return err
	case old && !b.force:
		return fmt.Errorf("build guest %s: it is there already (vserver %s delete, or --force, which renames it)", v.name, v.name)
	case on:
		return fmt.Errorf("build guest %s: the old one runs: stop it first (vserver %s stop)", v.name, v.name)
	}
	if err := v.h.Guests.Claim(ctx, b.g); err != nil {
		return err
	}
	build := v.h.Images.Build
	if m, _ := buildmethod.Find(b.method); m.Moment {
		build = v.h.Images.BuildAnew
	}
	img, _, err := build(ctx, spec, v.progress())
	if err != nil {
		return err
	}
	b.g.Image = img.ID
	if !old {
		return v.h.Guests.Create(ctx, b.g)
	}
	// Not before the new one's image is there.
	aside, err := v.h.Guests.Replace(ctx, b.g)
	if err == nil {
		v.say("The old guest is %s now: its configuration %s and its files", filepath.Base(aside), aside)
	}
	return err
}

// progress prints what a build does, one line per stage.
func (v verb) progress() func(api.Event) {
	if v.silent {
		return nil
	}
	last := ""
	return func(e api.Event) {
		msg := e.Message
		if e.Kind == api.Warning {
			msg = "warning: " + msg
		}
		if e.Total > 0 {
			msg = fmt.Sprintf("%s (%d of %d)", msg, e.Done, e.Total)
		}
		if msg != last {
			fmt.Fprintln(os.Stderr, msg)
			last = msg
		}
	}
}
