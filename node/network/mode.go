package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/probe"
)

// Mode is one way of connecting guests to a network.
type Mode interface {
	// Private reports whether each guest has a network namespace of its own.
	Private() bool
	// Scope reports whether Landlock must keep a guest's processes from the abstract
	// Unix sockets of the host, because they are in the host's network.
	Scope() (bool, error)
	// Needs returns the abilities that the host must have for this mode.
	Needs() []*probe.Ability
	// Validate returns an error for settings that the mode does not support.
	Validate(n api.Network) error
	// Addresses returns the addresses that a guest's host name resolves to.
	Addresses(g api.Guest) []netip.Addr
	// Assumed returns what has to be released for a guest whose notes are lost.
	Assumed(n api.Network) Notes

	// Check returns an error if the start would not give the guest what its settings
	// promise, and warns of what will not work as expected.
	Check(ctx context.Context, g *Guest) error
	// Attach gives the guest its network. For modes in the host's network it is called
	// before the guest has a process; for private modes, once there is a namespace and
	// before any program of the guest runs in it.
	Attach(ctx context.Context, g *Guest) error
	// Update prepares a running guest for other ports, forwards or metadata. They take
	// effect with the next Publish.
	Update(ctx context.Context, g *Guest) error
	// Drift returns by guest's name what guests have lost of what they were given, one
	// text for each thing. Repair restores it.
	Drift(ctx context.Context, host *Survey, guests []*Guest) (map[string][]string, error)
	Repair(ctx context.Context, g *Guest) error
	// Release undoes Attach, by the notes. The guest has no process any more.
	Release(ctx context.Context, g *Guest) error

	// filter returns the entries of the host's packet filter for a running guest.
	filter(g api.Guest) nat.Want
}

// The modes.
var (
	Shared Mode = shared{}
	Own    Mode = own{hostNetwork{allPorts: true}}
	NAT    Mode = private{}
)

// Of returns the mode with the given name.
func Of(name api.Mode) (Mode, error) {
	switch name {
	case api.ModeShared:
		return Shared, nil
	case api.ModeOwn:
		return Own, nil
	case api.ModeNAT:
		return NAT, nil
	}
	return nil, fmt.Errorf("network mode %q: want shared, own or nat", name)
}

// Guest is a guest as its mode sees it.
type Guest struct {
	api.Guest          // Network holds what it has or is to have
	Cgroup    string   // directory of its cgroup
	Netns     *os.File // its own network namespace, for Attach and Repair in private modes
	Notes     *Notes
	Save      func() error // writes Notes to where they outlive vsnode
	Warn      func(string) // may be nil
	Others    Others

	places map[netip.Addr]netctx.HostAddress // see hostAddresses
}

// Others gives access to the other guests of a host.
type Others interface {
	// Networks returns the running guests by name, with the networks they have.
	Networks() (map[string]api.Guest, error)
	// ContextNames returns the names of the configured guests by context.
	ContextNames() (map[int]string, error)
}

// Notes record what is needed to check, repair and release the guest's network.
type Notes struct {
	Dev   string                `json:"dev,omitempty"`
	Added []netip.Prefix        `json:"added,omitempty"` // addresses that vsnode put onto Dev, or:
	Devs  map[netip.Addr]string `json:"devs,omitempty"`  // their own devices
	Pings bool                  `json:"pings,omitempty"` // the source address of its pings is set
	Place
}

// Place is where a guest's network is.
type Place struct {
	NAT bool   `json:"nat,omitempty"` // it has a namespace of its own
	Net string `json:"net,omitempty"` // NAT: the namespace (namespaceID)
}

// FirstNotes returns the notes of a guest in mode m before Check and Attach.
func FirstNotes(m Mode) Notes { return Notes{Place: Place{NAT: m.Private()}, Pings: !m.Private()} }

// Mode returns the mode of the guest that is there. name is the mode it was
// started in, if known. If it is not, Mode returns one that releases everything that
// may have been given.
func (n Place) Mode(name api.Mode) Mode {
	if m, err := Of(name); err == nil {
		return m
	}
	if n.NAT {
		return NAT
	}
	return Own
}

func (g *Guest) warn(format string, args ...any) {
	if g.Warn != nil {
		g.Warn(fmt.Sprintf(format, args...))
	}
}

// hostAddresses returns the addresses the host had when first asked.
func (g *Guest) hostAddresses() (_ map[netip.Addr]netctx.HostAddress, err error) {
	if g.places == nil {
		g.places, err = netctx.HostAddresses()
	}
	return g.places, err
}

// Survey is a snapshot of the host, taken when the first mode asks for it.
type Survey struct{ view *netctx.View }

func (s *Survey) netctx() (_ *netctx.View, err error) {
	if s.view == nil {
		s.view, err = netctx.Look()
	}
	return s.view, err
}
