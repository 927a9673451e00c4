package rollout

import (
	"net/netip"
	"strings"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

var (
	bookworm = &inventory.Image{Name: "bookworm", Method: "debootstrap", Args: []string{"-d", "bookworm"}}
	trixie   = &inventory.Image{Name: "trixie", Method: "debootstrap", Args: []string{"-d", "trixie"}}
)

func imageNamed(name string) *inventory.Image {
	switch name {
	case "bookworm":
		return bookworm
	case "trixie":
		return trixie
	}
	if strings.HasPrefix(name, "box") {
		return &inventory.Image{Name: name, Method: "template", Args: []string{"-t", "/root/" + name + ".tar"}}
	}
	return nil
}

// www is a guest as the inventory gives it; each row changes what it is about.
func www(change ...func(*inventory.Guest)) *inventory.Guest {
	g := &inventory.Guest{
		Guest: api.Guest{
			Name: "www", Context: 120, Image: "bookworm", Hostname: "www", Init: api.Init{Style: "plain"},
			Network: api.Network{Mode: inventory.Shared, Ports: []port.Range{tcp(80)}},
		},
		HostAddress: true, State: inventory.Running,
	}
	for _, f := range change {
		f(g)
	}
	return g
}

// there returns the state of www on a host where nothing is to be done.
func there(change ...func(*api.GuestState)) api.GuestState {
	g := api.GuestState{Status: api.Running, Guest: api.Guest{
		Name: "www", Context: 120, Image: "sha256:b1", Hostname: "www",
		Network: api.Network{Mode: api.ModeShared, Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.11/32")}, Ports: []port.Range{tcp(80)}},
		Init:    api.Init{Style: "plain"},
	}}
	for _, f := range change {
		f(&g)
	}
	return g
}

func tcp(n uint16) port.Range { return port.Range{Proto: port.TCP, First: n, Last: n} }

func named(name string, context int, ports ...port.Range) func(*inventory.Guest) {
	return func(g *inventory.Guest) { g.Name, g.Hostname, g.Context, g.Network.Ports = name, name, context, ports }
}

func isNamed(name string, context int, ports ...port.Range) func(*api.GuestState) {
	return func(g *api.GuestState) { g.Name, g.Hostname, g.Context, g.Network.Ports = name, name, context, ports }
}

// able is a host that has nothing yet.
func able() api.State {
	return api.State{
		Host: api.Host{
			DefaultAddress: netip.MustParsePrefix("203.0.113.11/24"), DefaultDev: "ens3",
			Controllers: []string{"cpu", "memory", "pids"},
			Methods:     []string{"template", "debootstrap"},
		},
	}
}

func motd(change ...func(*inventory.File)) func(*inventory.Guest) {
	f := inventory.File{Path: "/etc/motd", Content: []byte("hello\n"), Mode: 0o644, Owner: "root:root"}
	for _, c := range change {
		c(&f)
	}
	return func(g *inventory.Guest) { g.Files = append(g.Files, f) }
}
