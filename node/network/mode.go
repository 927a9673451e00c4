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

// Mode is a way in which guests have a network.
type Mode interface {
	// Private reports whether each guest has a network namespace of its own.
	Private() bool
	// Scope reports whether a guest's processes have to be kept by Landlock from
	// the abstract Unix sockets of the host, whose network they are in.
	Scope() (bool, error)
	// Needs returns the abilities of the host without which the mode cannot be had.
	Needs() []*probe.Ability
	// Validate refuses settings that the mode cannot bring about.
	Validate(n api.Network) error
	// Addresses returns those by which a guest finds itself.
	Addresses(g api.Guest) []netip.Addr
	// Assumed returns what has to be taken back of a guest whose notes are lost.
	Assumed(n api.Network) Notes

	// Check refuses a start that would not give the guest what its settings
	// promise, and warns of what will not work as expected.
	Check(ctx context.Context, g *Guest) error
	// Attach gives the guest its network. In the host's network it is called
	// before the guest has a process; where the mode is private, when there is a
	// namespace and nothing of the guest's runs in it.
	Attach(ctx context.Context, g *Guest) error
	// Update prepares a running guest for other ports, forwards or metadata. They
	// hold with the next Publish.
	Update(ctx context.Context, g *Guest) error
	// Drift returns by name what guests do not have any more of what they were
	// given, one text each. Repair puts it back.
	Drift(ctx context.Context, host *Survey, guests []*Guest) (map[string][]string, error)
	Repair(ctx context.Context, g *Guest) error
	// Release takes back what Attach gave, by the notes. The guest has no process
	// any more.
	Release(ctx context.Context, g *Guest) error

	// filter returns what the host's packet filter holds for a guest that runs.
	filter(g api.Guest) nat.Want
}

// The modes.
var (
	Shared Mode = shared{}
	Own    Mode = own{hostNetwork{allPorts: true}}
	NAT    Mode = private{}
)

// Of returns the mode of a name.
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
	api.Guest          // Network is what it has, or is to have
	Cgroup    string   // directory of its cgroup
	Netns     *os.File // its own network namespace, for Attach and Repair in private modes
	Notes     *Notes
	Save      func() error // writes Notes, where they outlive vsnode
	Warn      func(string) // may be nil: nobody wants to know
	Others    Others

	places map[netip.Addr]netctx.HostAddress // see hostAddresses
}

// Others knows the other guests of a host.
type Others interface {
	// Networks returns the guests that run, by name, as they are connected.
	Networks() (map[string]api.Guest, error)
	// ContextNames returns the names of the configured guests by context.
	ContextNames() (map[int]string, error)
}

// Notes are what has to be known of a start to check, repair and take back the
// guest's network.
type Notes struct {
	Dev   string         `json:"dev,omitempty"`
	Added []netip.Prefix `json:"added,omitempty"` // addresses that vsnode put onto Dev
	Pings bool           `json:"pings,omitempty"` // the source of its pings is set
	NAT   bool           `json:"nat,omitempty"`   // it has a namespace of its own
	Net   string         `json:"net,omitempty"`   // NAT: the namespace (namespaceID)
}

// FirstNotes returns the notes of a guest in mode m before Check and Attach.
func FirstNotes(m Mode) Notes { return Notes{NAT: m.Private(), Pings: !m.Private()} }

// Mode returns the mode of the guest that the notes are of. name is the mode
// that it was started in, if that is known. If it is not, it is one that takes
// back all that may have been given.
func (n Notes) Mode(name api.Mode) Mode {
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

// hostAddresses returns what the host had when this was first asked.
func (g *Guest) hostAddresses() (_ map[netip.Addr]netctx.HostAddress, err error) {
	if g.places == nil {
		g.places, err = netctx.HostAddresses()
	}
	return g.places, err
}

// Survey is what the host has at a moment, read when the first mode asks for it.
type Survey struct{ view *netctx.View }

func (s *Survey) netctx() (_ *netctx.View, err error) {
	if s.view == nil {
		s.view, err = netctx.Look()
	}
	return s.view, err
}
