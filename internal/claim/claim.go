// Package claim holds the rules for what two guests of one host cannot both have: a
// context, an address, a port of an address, a port of the host. The inventory applies
// them to what should be, a host to what is configured and to what runs, a plan to the
// order of its steps, and node/nat to its forwards. The rules are written once, here;
// callers decide how to report a conflict and what to do about it.
//
// The package holds values only and opens nothing.
package claim

import (
	"net/netip"

	"github.com/vsfleet/vsfleet/internal/port"
)

// Kind is the kind of thing that a claim is on.
type Kind int8

// Kinds of claims.
const (
	Context Kind = iota + 1 // a context, and with it the IDs of a guest's files
	Own                     // an address with all its ports
	Share                   // an address that others may share
	Port                    // ports of an address that is shared
	Forward                 // a port of the host that leads to a guest behind it
)

// Place is one address of a host, or several. Places can be compared.
type Place struct {
	addr netip.Addr
	host bool
}

// Everywhere is every address of a host. Host is the address by which an inventory
// knows the host, which may be only a name.
var (
	Everywhere = Place{}
	Host       = Place{host: true}
)

// At returns the place of an address; for an invalid one, Everywhere.
func At(addr netip.Addr) Place { return Place{addr: addr} }

func (p Place) String() string {
	switch p {
	case Everywhere:
		return "every address"
	case Host:
		return "the host's address"
	}
	return p.addr.String()
}

// meets reports whether the two places have an address in common.
func (p Place) meets(o Place) bool { return p == o || p == Everywhere || o == Everywhere }

// Claim is one thing that a guest has to itself, or shares on a condition. Claims can
// be compared.
type Claim struct {
	Kind    Kind
	Context int          // of Context
	At      Place        // of all others
	Ports   port.Range   // of Port and Forward: the ports that are taken at the place
	Forward port.Forward // of Forward
}

// OfContext returns the claim on a context.
func OfContext(n int) Claim { return Claim{Kind: Context, Context: n} }

// OfAddress returns the claim on an address with all its ports.
func OfAddress(at Place) Claim { return Claim{Kind: Own, At: at} }

// OfShare returns the claim on an address beside others.
func OfShare(at Place) Claim { return Claim{Kind: Share, At: at} }

// OfPort returns the claim on ports of an address that is shared.
func OfPort(at Place, ports port.Range) Claim { return Claim{Kind: Port, At: at, Ports: ports} }

// OfForward returns the claim of a forward from ports at a place.
func OfForward(at Place, f port.Forward) Claim {
	return Claim{Kind: Forward, At: at, Ports: f.Range(), Forward: f}
}

// Conflicts reports whether two claims exclude each other. A forward from every address
// leaves out those that guests own.
func (c Claim) Conflicts(o Claim) bool {
	switch {
	case c.Kind == Context || o.Kind == Context:
		return c.Kind == o.Kind && c.Context == o.Context
	case c.takesPorts() && o.takesPorts():
		return c.At.meets(o.At) && c.Ports.Overlaps(o.Ports)
	case c.Kind == Own || o.Kind == Own:
		// A claim on ports of an address comes with a Share of it, which conflicts.
		return c.At == o.At && c.At != Everywhere && c.Kind != Port && o.Kind != Port
	}
	return false
}

func (c Claim) takesPorts() bool { return c.Kind == Port || c.Kind == Forward }
