package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vsfleet/vsfleet/internal/port"
)

// collision is one thing that two places claim on one or many hosts.
type collision struct {
	pos, first Position
	msg, hint  string
}

// collisions counts them over the hosts: two guests that are on a thousand
// hosts collide once, in one place.
type collisions struct {
	order []collision
	on    map[collision][]string
}

func (cs *collisions) add(c collision, host string) {
	if _, known := cs.on[c]; !known {
		cs.order = append(cs.order, c)
	}
	cs.on[c] = append(cs.on[c], host)
}

// validate looks for what two guests of one host cannot both have. Guests that
// are absent have nothing; stopped ones have what they would have when started.
func (b *builder) validate() {
	cs := &collisions{on: map[collision][]string{}}
	fleet := newNeighbours(b.inv.Hosts)
	for i, h := range b.inv.Hosts {
		present := slices.DeleteFunc(slices.Clone(b.placed[i]), func(p placed) bool { return p.guest.State == Absent })
		cs.contexts(h, present)
		owner := cs.addresses(h, present)
		cs.neighbours(h, present, fleet)
		cs.ports(h, present, owner)
	}
	for _, c := range cs.order {
		where := " on " + cs.on[c][0]
		switch more := len(cs.on[c]) - 1; {
		case more == 1:
			where += " and 1 more host"
		case more > 1:
			where += fmt.Sprintf(" and %d more hosts", more)
		}
		b.add(c.pos, c.hint, "%s%s", c.msg, where)
	}
}

func (cs *collisions) contexts(h *Host, guests []placed) {
	owner := make(map[int]*guestSpec, len(guests))
	for _, p := range guests {
		switch first := owner[p.guest.Context]; {
		case p.guest.Context == 0:
		case first != nil:
			cs.owned(h, fmt.Sprintf("context %d", p.guest.Context), claim{p.spec, p.spec.context.pos}, claim{first, first.context.pos})
		default:
			owner[p.guest.Context] = p.spec
		}
	}
}

// claim is what a guest lays on an address or a port, and where.
type claim struct {
	spec *guestSpec
	pos  Position
}

// compare orders claims as the files have them.
func (c claim) compare(o claim) int {
	return cmp.Or(cmp.Compare(c.spec.index, o.spec.index), cmp.Compare(c.pos.Line, o.pos.Line), cmp.Compare(c.pos.Column, o.pos.Column))
}

// owned reports that two claims are on one thing; the later one in the files
// is at fault.
func (cs *collisions) owned(h *Host, what string, x, y claim) {
	if x.compare(y) < 0 {
		x, y = y, x
	}
	if x.spec == y.spec {
		cs.add(collision{pos: x.pos, first: y.pos, msg: fmt.Sprintf("guest %s has %s twice, first at %s,", x.spec.name, what, y.pos)}, h.Name)
		return
	}
	cs.add(collision{pos: x.pos, first: y.pos, msg: fmt.Sprintf("%s is already guest %s's, at %s,", what, y.spec.name, y.pos)}, h.Name)
}

// addresses checks what own-mode guests bring, and says whose each address is.
func (cs *collisions) addresses(h *Host, guests []placed) map[netip.Addr]claim {
	owner := map[netip.Addr]claim{}
	hosts := h.ip()
	for _, p := range guests {
		if p.guest.Mode != Own {
			continue
		}
		for i, prefix := range p.guest.Addresses {
			c := claim{p.spec, p.spec.network.allAddresses()[i].pos}
			first, taken := owner[prefix.Addr()]
			switch {
			case prefix.Addr() == hosts:
				cs.add(collision{
					pos: c.pos, msg: fmt.Sprintf("address %s is the host's own", hosts),
					hint: "to share it: network: {mode: shared, address: host}",
				}, h.Name)
			case taken:
				cs.owned(h, "address "+prefix.Addr().String(), c, first)
			default:
				owner[prefix.Addr()] = c
			}
		}
	}
	return owner
}

// neighbours are the hosts that may be on one network: those that are reached by
// the same way, as far as an inventory tells.
type neighbours struct {
	hosts  map[seen]*Host // by their addresses
	guests map[seen]*Host // where a guest has an address of its own
}

// seen is an address as it is seen from a bastion, or from here.
type seen struct {
	jump string
	addr netip.Addr
}

func newNeighbours(hosts []*Host) *neighbours {
	n := &neighbours{hosts: map[seen]*Host{}, guests: map[seen]*Host{}}
	for _, h := range hosts {
		if ip := h.ip(); ip.IsValid() {
			n.hosts[seen{h.SSH.Jump, ip}] = h
		}
	}
	return n
}

// neighbours refuses an own address that another host has, or a guest on another
// host: it is announced on the network, and the other one is gone from there.
func (cs *collisions) neighbours(h *Host, guests []placed, fleet *neighbours) {
	for _, p := range guests {
		if p.guest.Mode != Own {
			continue
		}
		for i, prefix := range p.guest.Addresses {
			at := seen{h.SSH.Jump, prefix.Addr()}
			pos := p.spec.network.allAddresses()[i].pos
			if other := fleet.hosts[at]; other != nil && other != h {
				cs.add(collision{pos: pos, msg: fmt.Sprintf("address %s is host %s's own,", prefix.Addr(), other.Name)}, h.Name)
			}
			if other := fleet.guests[at]; other != nil && other != h {
				cs.add(collision{
					pos: pos, msg: fmt.Sprintf("address %s is a guest's on %s already: it can be on one host of a network,", prefix.Addr(), other.Name),
					hint: "give each host its own by a variable: ${vars.address}",
				}, h.Name)
			} else {
				fleet.guests[at] = h
			}
		}
	}
}

// place is where a port is held: on one address of the host, on the one by
// which the inventory knows it (which may be a name only), or, the zero value,
// on every address that the host has.
type place struct {
	host bool
	addr netip.Addr
}

func (h *Host) place(addr netip.Addr) place {
	if addr.IsValid() && addr == h.ip() {
		return place{host: true}
	}
	return place{addr: addr}
}

// ip is the host's address; invalid if it is known by a DNS name only.
func (h *Host) ip() netip.Addr {
	ip, err := netip.ParseAddr(h.Address)
	if err != nil {
		return netip.Addr{}
	}
	return ip.Unmap()
}

// hold is one range of ports that a guest holds in a place.
type hold struct {
	claim
	at   place
	port port.Range
}

// ports checks what shared-mode guests own and what is forwarded to nat ones.
func (cs *collisions) ports(h *Host, guests []placed, owner map[netip.Addr]claim) {
	var holds []hold
	for _, p := range guests {
		net := &p.spec.network
		var at []place
		if p.guest.HostAddress {
			at = []place{{host: true}}
		} else if p.guest.Mode == Shared {
			for i, prefix := range p.guest.Addresses {
				at = append(at, h.place(prefix.Addr()))
				if first, taken := owner[prefix.Addr()]; taken {
					cs.owned(h, "address "+prefix.Addr().String(), claim{p.spec, net.allAddresses()[i].pos}, first)
				}
			}
		}
		for i, r := range p.guest.Ports {
			for _, at := range at {
				holds = append(holds, hold{claim{p.spec, net.ports[i].pos}, at, r})
			}
		}
		for i, f := range p.guest.Forwards {
			c := claim{p.spec, net.forwards[i].pos}
			holds = append(holds, hold{c, h.place(f.Addr), f.Range()})
			if first, taken := owner[f.Addr]; taken {
				cs.owned(h, "address "+f.Addr.String(), c, first)
			}
		}
	}
	slices.SortFunc(holds, func(x, y hold) int {
		return cmp.Or(cmp.Compare(x.port.Proto, y.port.Proto), cmp.Compare(x.port.First, y.port.First), x.compare(y.claim))
	})
	// Going up the ports, only the hold that reaches furthest in a place can
	// still be in the way of the next one: n log n, whatever overlaps what.
	furthest := map[place]*hold{}
	var anywhere *hold
	for i := range holds {
		x := &holds[i]
		cs.sshd(h, x)
		inTheWay := []*hold{furthest[x.at], furthest[place{}]}
		if x.at == (place{}) {
			inTheWay = []*hold{anywhere}
		}
		for _, y := range inTheWay {
			if y != nil && y.port.Overlaps(x.port) {
				cs.owned(h, "port "+x.port.String(), x.claim, y.claim)
				break
			}
		}
		furthest[x.at] = further(furthest[x.at], x)
		anywhere = further(anywhere, x)
	}
}

// further is the hold that is in the way for longer.
func further(y, x *hold) *hold {
	if y == nil || y.port.Proto != x.port.Proto || y.port.Last < x.port.Last {
		return x
	}
	return y
}

// sshd keeps the port by which the host is reached: were it forwarded to a
// guest or owned by one, the next apply would find the guest in the host's place.
func (cs *collisions) sshd(h *Host, x *hold) {
	door := port.Range{Proto: port.TCP, First: uint16(h.Port), Last: uint16(h.Port)}
	if x.port.Overlaps(door) && (x.at.host || x.at == place{}) {
		cs.add(collision{
			pos:  x.pos,
			msg:  fmt.Sprintf("port %s is where the host's sshd answers,", door),
			hint: "give the guest another port",
		}, h.Name)
	}
}
