package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

// tableName names the one table of ours, of family inet.
const tableName = "vservers"

// table is what the kernel's table shall be.
type table struct {
	conn  *nftables.Conn
	table *nftables.Table
	// metadata holds the devices of guests that may ask the cloud for metadata.
	metadata *nftables.Set
}

// newTable writes the transaction that replaces the table.
func newTable(w Want, ws []inward) (*table, error) {
	ports, err := ephemeralPorts()
	if err != nil {
		return nil, err
	}
	for _, w := range ws {
		if w.addr.IsLoopback() && ports.holds(w.port) {
			return nil, fmt.Errorf("guest %s: port %d of localhost cannot be forwarded: it is one of %d to %d, from which connections take their source port (net.ipv4.ip_local_port_range): choose another",
				w.owner, w.port, ports.first, ports.last)
		}
	}
	t, err := noTable()
	if err != nil {
		return nil, err
	}
	t.conn.AddTable(t.table)
	var fs []familySets
	var ask []nftables.SetElement
	for _, g := range w.Guests {
		if g.Metadata {
			ask = append(ask, nftables.SetElement{Key: ifname(deviceName(g.XID))})
		}
	}
	if t.metadata, err = t.addSet("metadata", ask, nil, nftables.TypeIFName); err != nil {
		return nil, fmt.Errorf("write table %s: %w", tableName, err)
	}
	for _, f := range families() {
		s, err := t.addSets(f, w, ws, ports)
		if err != nil {
			return nil, fmt.Errorf("write table %s: %w", tableName, err)
		}
		fs = append(fs, s)
	}
	t.addRules(fs)
	return t, nil
}

// commit carries the transaction out: all of it or nothing.
func (t *table) commit() error {
	err := t.conn.Flush()
	if err != nil {
		err = fmt.Errorf("replace nftables table inet %s: %w", tableName, err)
	}
	return errors.Join(err, t.conn.CloseLasting())
}

// noTable writes the transaction that removes the table.
func noTable() (*table, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(roomForAll))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	t := &table{conn: conn, table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}}
	// Adding before deleting makes the deletion succeed whether or not the
	// table was there.
	conn.AddTable(t.table)
	conn.DelTable(t.table)
	return t, nil
}

// ensureTable puts a table without guests where there is none.
func ensureTable() (undo func() error, err error) {
	if there, err := hasTable(); err != nil || there {
		return func() error { return nil }, err
	}
	t, err := newTable(Want{}, nil)
	if err != nil {
		return nil, err
	}
	return removeTable, t.commit()
}

func removeTable() error {
	t, err := noTable()
	if err != nil {
		return err
	}
	return t.commit()
}

func hasTable() (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }), nil
}

// roomForAll lets a transaction be as large as some ten thousand guests make it: it is
// one message to the kernel, and an acknowledgement for each of its parts.
func roomForAll(c *netlink.Conn) error {
	const most = 64 << 20 // a bound, not an allocation
	return errors.Join(c.SetWriteBuffer(most), c.SetReadBuffer(most))
}

// familySets are the sets and maps of one family, which the rules ask.
type familySets struct {
	family
	guests    *nftables.Set // device . address
	reserved  *nftables.Set // daddr: not the host's own
	localhost *nftables.Set // l4proto . dport: forwards on localhost
	any       *nftables.Set // l4proto . dport : guest . port
	at        *nftables.Set // daddr . l4proto . dport : guest . port
}

func (t *table) addSets(f family, w Want, ws []inward, ephemeral portRange) (familySets, error) {
	s := familySets{family: f}
	var guests, reserved, localhost, anyAddr, at []nftables.SetElement
	for _, g := range w.Guests {
		key := concat(ifname(deviceName(g.XID)), f.address(g.XID).AsSlice())
		guests = append(guests, nftables.SetElement{Key: key, Comment: g.Name})
	}
	for _, a := range w.Reserved {
		if a = a.Unmap(); f.has(a) {
			reserved = append(reserved, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	for _, w := range ws {
		if !f.has(w.to.Addr()) {
			continue
		}
		key := concat([]byte{protoNumber(w.proto)}, bigEndian(w.port))
		to := concat(w.to.Addr().AsSlice(), bigEndian(w.to.Port()))
		if w.addr.IsValid() {
			at = append(at, nftables.SetElement{Key: concat(w.addr.AsSlice(), key), Val: to})
		} else {
			anyAddr = append(anyAddr, nftables.SetElement{Key: key, Val: to})
		}
		if (!w.addr.IsValid() || w.addr == f.loopback) && !ephemeral.holds(w.port) {
			localhost = append(localhost, nftables.SetElement{Key: key})
		}
	}
	proto, service := nftables.TypeInetProto, nftables.TypeInetService
	var errs [5]error
	s.guests, errs[0] = t.addSet("guests"+f.name, guests, nil, nftables.TypeIFName, f.kind)
	s.reserved, errs[1] = t.addSet("reserved"+f.name, reserved, nil, f.kind)
	s.localhost, errs[2] = t.addSet("localhost"+f.name, localhost, nil, proto, service)
	target := []nftables.SetDatatype{f.kind, service}
	s.any, errs[3] = t.addSet("any"+f.name, anyAddr, target, proto, service)
	s.at, errs[4] = t.addSet("at"+f.name, at, target, f.kind, proto, service)
	return s, errors.Join(errs[:]...)
}

// addSet adds a set, or with a target a map.
func (t *table) addSet(name string, elements []nftables.SetElement, target []nftables.SetDatatype, key ...nftables.SetDatatype) (*nftables.Set, error) {
	s := &nftables.Set{Table: t.table, Name: name, KeyType: key[0], IsMap: target != nil}
	var err error
	if len(key) > 1 {
		s.Concatenation = true
		if s.KeyType, err = nftables.ConcatSetType(key...); err != nil {
			return nil, err
		}
	}
	if s.IsMap {
		if s.DataType, err = nftables.ConcatSetType(target...); err != nil {
			return nil, err
		}
	}
	if err := t.conn.AddSet(s, nil); err != nil {
		return nil, err
	}
	// One netlink attribute holds all elements of a message, and no more than 64 KiB.
	for some := range slices.Chunk(elements, 256) {
		if err := t.conn.SetAddElements(s, some); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (t *table) addRules(fs []familySets) {
	filter, nat := nftables.ChainTypeFilter, nftables.ChainTypeNAT
	// Before conntrack (-200), so that nothing of a forger's is remembered.
	const raw, afterNAT = -300, 110

	t.withholdMetadata(fs)
	source := t.chain("source")
	for _, f := range fs {
		// A guest is root of its namespace and may route 127.0.0.0/8 to the host,
		// where others (kube-proxy, docker) may have turned route_localnet on.
		t.add(source, f.matches(), f.addrIn(f.dst, f.local), verdict(expr.VerdictDrop))
		if f.size == 16 {
			// Linux takes a packet for an address of lo on any device; only ::1
			// itself is out of reach.
			t.add(source, f.matches(), f.addrIn(f.dst, localhosts6), verdict(expr.VerdictDrop))
		}
		t.add(source, f.matches(), f.deviceAndSource(expr.MetaKeyIIFNAME), in(f.guests), exprs{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "honest"}})
		if f.size == 16 {
			// Neighbour discovery may come from eth0's link-local address; router
			// advertisements and redirects may not come at all.
			linkLocal := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10)
			t.add(source, f.matches(), f.addrIn(f.src, linkLocal), icmp(unix.IPPROTO_ICMPV6, 135, 136), verdict(expr.VerdictAccept))
		}
	}
	t.add(source, verdict(expr.VerdictDrop))
	guard := t.base("guard", filter, nftables.ChainHookPrerouting, raw)
	t.add(guard, fromGuest(), jump(source))

	forwards := t.chain("forwards")
	for _, f := range fs {
		t.add(forwards, f.matches(), exprs{f.load(f.dst, reg(0))}, in(f.reserved), verdict(expr.VerdictReturn))
		// Loopback is the host's only when chain output has seen to it; 127.x.y.1
		// are guests' that share the host's network.
		t.add(forwards, f.matches(), f.addrIn(f.dst, f.local), f.addrNot(f.src, f.gateway), verdict(expr.VerdictReturn))
	}
	for _, f := range fs {
		t.add(forwards, f.matches(), exprs{f.load(f.dst, reg(0))}, loadPort(f.size/4), f.dnat(f.at))
		t.add(forwards, f.matches(), loadPort(0), f.dnat(f.any))
	}
	prerouting := t.base("prerouting", nat, nftables.ChainHookPrerouting, -100)
	t.add(prerouting, ofHost(), jump(forwards))
	translate := t.base("translate", nat, nftables.ChainHookOutput, -100)
	t.add(translate, ofHost(), jump(forwards))

	forward := t.base("forward", filter, nftables.ChainHookForward, 0)
	t.add(forward, toGuest(), established(), verdict(expr.VerdictAccept))
	t.add(forward, toGuest(), destinationTranslated(), verdict(expr.VerdictAccept))
	t.add(forward, toGuest(), reject())

	postrouting := t.base("postrouting", nat, nftables.ChainHookPostrouting, 100)
	t.add(postrouting, fromGuest(), toElsewhere(), masquerade())
	// A guest that comes back to itself must not see its own address as a stranger's.
	for _, f := range fs {
		t.add(postrouting, f.matches(), f.deviceAndSource(expr.MetaKeyOIFNAME), in(f.guests), masquerade())
	}

	output := t.base("output", filter, nftables.ChainHookOutput, raw)
	input := t.base("input", filter, nftables.ChainHookInput, afterNAT)
	for _, f := range fs {
		t.add(output, f.matches(), f.addrIs(f.src, f.loopback), f.addrIs(f.dst, f.loopback),
			loadPort(0), in(f.localhost), f.setSource(f.gateway))
		t.add(input, fromGuest(), f.matches(), f.addrIs(f.src, f.loopback), f.addrIs(f.dst, f.gateway),
			f.setDest(f.loopback))
	}
	// A guest on the way to itself goes out of the device it came in by. It must
	// not be told that it gets there without the host.
	t.add(output, toGuest(), icmp(unix.IPPROTO_ICMP, 5, 5), verdict(expr.VerdictDrop))
	t.add(output, toGuest(), icmp(unix.IPPROTO_ICMPV6, 137, 137), verdict(expr.VerdictDrop))
}

func (t *table) chain(name string) *nftables.Chain {
	return t.conn.AddChain(&nftables.Chain{Table: t.table, Name: name})
}

func (t *table) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return t.conn.AddChain(&nftables.Chain{
		Table: t.table, Name: name, Type: kind, Hooknum: hook, Priority: &priority, Policy: &accept,
	})
}

func (t *table) add(c *nftables.Chain, words ...exprs) {
	t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: c, Exprs: rule(words...)})
}

// concat puts the parts of a key one behind another, each filled up to a register.
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

type portRange struct{ first, last uint16 }

func (r portRange) holds(p uint16) bool { return r.first <= p && p <= r.last }

// ephemeralPorts are those that a socket may get without asking for one.
func ephemeralPorts() (portRange, error) {
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	s, err := get(path)
	if err != nil {
		return portRange{}, err
	}
	fields := strings.Fields(s)
	if len(fields) != 2 {
		return portRange{}, fmt.Errorf("%s holds %q, want two ports", path, s)
	}
	first, err1 := strconv.ParseUint(fields[0], 10, 16)
	last, err2 := strconv.ParseUint(fields[1], 10, 16)
	if err := errors.Join(err1, err2); err != nil {
		return portRange{}, fmt.Errorf("%s: %w", path, err)
	}
	return portRange{uint16(first), uint16(last)}, nil
}
