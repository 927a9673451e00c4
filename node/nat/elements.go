package nat

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/internal/port"
)

// elementSets holds the elements of the tables' sets and maps, by name of the set
// and by key.
type elementSets map[string]map[string]nftables.SetElement

func (e elementSets) add(set string, s nftables.SetElement) {
	if e[set] == nil {
		e[set] = map[string]nftables.SetElement{}
	}
	e[set][string(s.Key)] = s
}

// elements returns the elements that the tables should hold.
func (w Want) elements(ws []translation, ephemeral port.Range) elementSets {
	e := elementSets{}
	for _, g := range w.Guests {
		dev := ifname(deviceName(g.XID))
		for _, f := range families() {
			e.add("guests"+f.name, nftables.SetElement{Key: concat(dev, f.address(g.XID).AsSlice()), Comment: g.Name})
		}
		e.add("neighbours4", nftables.SetElement{Key: concat(dev, address4(g.XID).AsSlice())})
		e.add("neighbours6", nftables.SetElement{Key: concat(dev, linkLocal(g.XID).AsSlice())})
		if g.Metadata {
			e.add("metadata", nftables.SetElement{Key: dev})
		}
	}
	for _, a := range w.Reserved {
		e.add("reserved"+familyOf(a.Unmap()).name, nftables.SetElement{Key: a.Unmap().AsSlice()})
	}
	for _, w := range ws {
		f := familyOf(w.to.Addr())
		key := concat([]byte{protoNumber(w.proto)}, bigEndian(w.port))
		to := concat(w.to.Addr().AsSlice(), bigEndian(w.to.Port()))
		if w.addr.IsValid() {
			e.add("at"+f.name, nftables.SetElement{Key: concat(w.addr.AsSlice(), key), Val: to})
		} else {
			e.add("any"+f.name, nftables.SetElement{Key: key, Val: to})
		}
		if (!w.addr.IsValid() || w.addr == f.loopback) && !ephemeral.Contains(w.port) {
			e.add("localhost"+f.name, nftables.SetElement{Key: key})
		}
	}
	return e
}

// alter changes the elements of the tables from have to want.
func (l *layout) alter(have, want elementSets) error {
	type change struct {
		set       *nftables.Set
		gone, new map[string]nftables.SetElement
	}
	var changes []change
	for _, s := range l.sets {
		c := change{s, missing(have[s.Name], want[s.Name]), missing(want[s.Name], have[s.Name])}
		if len(c.gone)+len(c.new) > 0 {
			changes = append(changes, c)
		}
	}
	if changes == nil {
		return nil
	}
	return l.commit(func(conn *nftables.Conn) error {
		// Delete first: a port may move from one guest to another.
		for _, c := range changes {
			for some := range slices.Chunk(sorted(c.gone), elementsPerMessage) {
				if err := conn.SetDeleteElements(c.set, some); err != nil {
					return err
				}
			}
		}
		for _, c := range changes {
			if err := addElements(conn, c.set, c.new); err != nil {
				return err
			}
		}
		return nil
	})
}

// missing returns the elements of a that b lacks or has with another value.
func missing(a, b map[string]nftables.SetElement) map[string]nftables.SetElement {
	diff := map[string]nftables.SetElement{}
	for key, e := range a {
		if other, there := b[key]; !there || !bytes.Equal(e.Val, other.Val) || e.Comment != other.Comment {
			diff[key] = e
		}
	}
	return diff
}

// elementsPerMessage limits the size of a message: one netlink attribute, of at most
// 64 KiB, holds all its elements.
const elementsPerMessage = 256

func addElements(conn *nftables.Conn, s *nftables.Set, elements map[string]nftables.SetElement) error {
	for some := range slices.Chunk(sorted(elements), elementsPerMessage) {
		if err := conn.SetAddElements(s, some); err != nil {
			return err
		}
	}
	return nil
}

func sorted(elements map[string]nftables.SetElement) []nftables.SetElement {
	list := make([]nftables.SetElement, 0, len(elements))
	for _, e := range elements {
		list = append(list, e)
	}
	order.Func(list, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	return list
}

// readElements returns the elements of the kernel's tables.
func (l *layout) readElements() (elementSets, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	all := elementSets{}
	for _, s := range l.sets {
		if s.Dynamic {
			continue
		}
		list, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("read nftables set %s: %w", s.Name, err)
		}
		for _, e := range list {
			all.add(s.Name, e)
		}
	}
	return all, nil
}

// concat joins the parts of a key, each padded to a register.
func concat(parts ...[]byte) []byte {
	var key []byte
	for _, p := range parts {
		key = append(key, p...)
		key = append(key, make([]byte, (4-len(p)%4)%4)...)
	}
	return key
}

func bigEndian(n uint16) []byte { return []byte{byte(n >> 8), byte(n)} }

func protoNumber(p port.Proto) byte {
	if p == port.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// refuseEphemeral returns an error if a forward on localhost has a port that a
// connection there may use as its source port.
func refuseEphemeral(ws []translation, ephemeral port.Range) error {
	for _, w := range ws {
		if w.addr.IsLoopback() && ephemeral.Contains(w.port) {
			return fmt.Errorf("guest %s: port %d of localhost cannot be forwarded: it is one of %d to %d, from which connections take their source port (net.ipv4.ip_local_port_range): choose another",
				w.owner, w.port, ephemeral.First, ephemeral.Last)
		}
	}
	return nil
}
