package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/claim"
	"github.com/vsfleet/vsfleet/internal/depends"
	"github.com/vsfleet/vsfleet/internal/nearest"
	"github.com/vsfleet/vsfleet/internal/port"
)

// collision is something that two guests claim, on one or many hosts.
type collision struct {
	pos, first Position
	msg, hint  string
}

// collisions counts collisions over the hosts: two guests on a thousand hosts
// collide once, in one place.
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

// validate reports what two guests of one host cannot both have. Absent guests have
// nothing; stopped ones have what they would have when started.
func (b *builder) validate() {
	cs := &collisions{on: map[collision][]string{}}
	fleet := newNeighbours(b.inv.Hosts)
	for i, h := range b.inv.Hosts {
		present := slices.DeleteFunc(slices.Clone(b.placements[i]), func(p placement) bool { return p.guest.State == Absent })
		cs.claims(h, present)
		cs.depends(h, present)
		cs.neighbours(h, present, fleet)
	}
	for _, c := range cs.order {
		where := " on " + cs.on[c][0]
		switch more := len(cs.on[c]) - 1; {
		case more == 1:
			where += " and 1 more host"
		case more > 1:
			where += fmt.Sprintf(" and %d more hosts", more)
		}
		b.Add(c.pos, c.hint, "%s%s", c.msg, where)
	}
}

// stake is a claim of a guest, with its position in the files.
type stake struct {
	spec  *guestSpec
	pos   Position
	claim claim.Claim
}

// compare orders stakes as the files have them.
func (s stake) compare(o stake) int {
	return cmp.Or(cmp.Compare(s.spec.index, o.spec.index), cmp.Compare(s.pos.Line, o.pos.Line), cmp.Compare(s.pos.Column, o.pos.Column))
}

// claims reports what guests claim that their host needs itself, and what two of
// them claim.
func (cs *collisions) claims(h *Host, guests []placement) {
	var all []stake
	for _, p := range guests {
		all = p.stakes(all, h)
	}
	// Addresses first, then the ports from the lowest one up: of two ranges the
	// error names the one that begins inside the other.
	slices.SortStableFunc(all, func(x, y stake) int {
		return cmp.Or(cmp.Compare(x.claim.Ports.Proto, y.claim.Ports.Proto), cmp.Compare(x.claim.Ports.First, y.claim.Ports.First), x.compare(y))
	})
	var taken claim.Table[int] // by its place among all
	for i, s := range all {
		if cs.ofHost(h, s) && s.claim.Kind == claim.Own {
			continue
		}
		if others := taken.Conflicts(s.claim); len(others) > 0 {
			cs.owned(h, s, all[others[0].Owner])
		}
		taken.Add(i, s.claim)
	}
}

// depends reports guests that depend on one that their host does not have, or on each
// other in a circle.
func (cs *collisions) depends(h *Host, guests []placement) {
	of := map[string]placement{}
	on := depends.Graph{}
	var names []string
	for _, p := range guests {
		of[p.guest.Name], on[p.guest.Name] = p, p.guest.Boot.Depends
		names = append(names, p.guest.Name)
	}
	whole := true
	for _, p := range guests {
		for i, name := range p.guest.Boot.Depends {
			if _, there := of[name]; !there {
				whole = false
				hint := ""
				if near := nearest.Word(name, names); near != "" {
					hint = fmt.Sprintf("did you mean %q?", near)
				}
				pos := p.spec.settings["depends"][min(i, len(p.spec.settings["depends"])-1)].Pos
				cs.add(collision{pos: pos, msg: fmt.Sprintf("guest %s depends on %s, which is no guest", p.guest.Name, name), hint: hint}, h.Name)
			}
		}
	}
	var circle depends.CycleError
	if _, err := on.Order(names); whole && errors.As(err, &circle) {
		cs.add(collision{pos: of[circle[0]].spec.settings["depends"][0].Pos, msg: fmt.Sprintf("guests depend on each other in a circle, %s → %s,", strings.Join(circle, " → "), circle[0])}, h.Name)
	}
}

// stakes appends what a guest claims of its host.
func (p placement) stakes(all []stake, h *Host) []stake {
	net := &p.spec.network
	add := func(pos Position, c claim.Claim) { all = append(all, stake{p.spec, pos, c}) }
	if p.guest.Context != 0 {
		add(p.spec.context.Pos, claim.OfContext(p.guest.Context))
	}
	var shared []claim.Place
	if p.guest.HostAddress {
		shared = append(shared, claim.Host)
	}
	for i, prefix := range p.guest.Network.Addresses {
		at, pos := h.place(prefix.Addr()), net.allAddresses()[i].Pos
		switch {
		case p.guest.Network.Mode == Own:
			add(pos, claim.OfAddress(at))
		case p.guest.Network.Mode == Shared && !p.guest.HostAddress:
			add(pos, claim.OfShare(at))
			shared = append(shared, at)
		}
	}
	for i, r := range p.guest.Network.Ports {
		for _, at := range shared {
			add(p.spec.settings["network.ports"][i].Pos, claim.OfPort(at, r))
		}
	}
	for i, f := range p.guest.Network.Forwards {
		add(p.spec.settings["network.forward"][i].Pos, claim.OfForward(h.place(f.Addr), f))
	}
	return all
}

// owned reports that two guests claim the same, as a mistake of the later one in
// the files. x is the claim that begins inside the other.
func (cs *collisions) owned(h *Host, x, y stake) {
	what := ""
	switch {
	case x.claim.Kind == claim.Context:
		what = fmt.Sprintf("context %d", x.claim.Context)
	case x.claim.Kind == claim.Own || y.claim.Kind == claim.Own:
		what = fmt.Sprintf("address %s", x.claim.At)
	default:
		what = fmt.Sprintf("port %s", x.claim.Ports)
	}
	if x.compare(y) < 0 {
		x, y = y, x
	}
	if x.spec == y.spec {
		cs.add(collision{pos: x.pos, first: y.pos, msg: fmt.Sprintf("guest %s has %s twice, first at %s,", x.spec.name, what, y.pos)}, h.Name)
		return
	}
	cs.add(collision{pos: x.pos, first: y.pos, msg: fmt.Sprintf("%s is already guest %s's, at %s,", what, y.spec.name, y.pos)}, h.Name)
}

// ofHost reports a claim to what the host has to keep: its address, and the port by
// which it is reached. If that one were forwarded to a guest or owned by one, the
// next apply would reach the guest instead of the host.
func (cs *collisions) ofHost(h *Host, s stake) bool {
	sshd := port.Range{Proto: port.TCP, First: uint16(h.Port), Last: uint16(h.Port)}
	c := collision{pos: s.pos}
	switch {
	case s.claim.Conflicts(claim.OfShare(claim.Host)):
		c.msg = fmt.Sprintf("address %s is the host's own", h.ip())
		c.hint = "to share it: network: {mode: shared, address: host}"
	case s.claim.Conflicts(claim.OfPort(claim.Host, sshd)):
		c.msg = fmt.Sprintf("port %s is where the host's sshd answers,", sshd)
		c.hint = "give the guest another port"
	default:
		return false
	}
	cs.add(c, h.Name)
	return true
}

// neighbours are the hosts that may be on one network, which for all that an
// inventory knows are those with the same jump hosts.
type neighbours struct {
	hosts  map[sighting]*Host // by their addresses
	guests map[sighting]*Host // the hosts of guests with own addresses
}

// sighting is an address as seen from a jump host, or from here.
type sighting struct {
	jump string
	addr netip.Addr
}

func newNeighbours(hosts []*Host) *neighbours {
	n := &neighbours{hosts: map[sighting]*Host{}, guests: map[sighting]*Host{}}
	for _, h := range hosts {
		if ip := h.ip(); ip.IsValid() {
			n.hosts[sighting{h.SSH.Jump, ip}] = h
		}
	}
	return n
}

// neighbours reports an own address that another host or a guest on another host
// has: the guest would announce it on the network and take it away from there.
func (cs *collisions) neighbours(h *Host, guests []placement, fleet *neighbours) {
	for _, p := range guests {
		if p.guest.Network.Mode != Own {
			continue
		}
		for i, prefix := range p.guest.Network.Addresses {
			at := sighting{h.SSH.Jump, prefix.Addr()}
			pos := p.spec.network.allAddresses()[i].Pos
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

// place returns where an address of the host is claimed. Its own address is the
// same place by whatever name.
func (h *Host) place(addr netip.Addr) claim.Place {
	if addr.IsValid() && addr == h.ip() {
		return claim.Host
	}
	return claim.At(addr)
}

// ip returns the host's address, which is invalid if only its DNS name is known.
func (h *Host) ip() netip.Addr {
	ip, err := netip.ParseAddr(h.Address)
	if err != nil {
		return netip.Addr{}
	}
	return ip.Unmap()
}
