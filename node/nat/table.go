package nat

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableName is the name of our two tables, of families inet and arp.
const tableName = "vservers"

// layout describes the tables without their elements. It is the same on every host
// except for the bound on connections.
type layout struct {
	inet, arp *nftables.Table
	sets      []*nftables.Set
	chains    []*nftables.Chain
	rules     []*nftables.Rule
}

// familySets holds the sets and maps of one family that the rules look up.
type familySets struct {
	family
	guests     *nftables.Set // device . address
	neighbours *nftables.Set // device . address from which it may ask for the host's: that of ARP, or link-local
	reserved   *nftables.Set // daddr: not the host's own
	localhost  *nftables.Set // l4proto . dport: forwards on localhost
	any        *nftables.Set // l4proto . dport : guest . port
	at         *nftables.Set // daddr . l4proto . dport : guest . port
	flows      *nftables.Set // saddr: counts connections
}

func newLayout() (*layout, error) {
	most, err := connectionsPerGuest()
	if err != nil {
		return nil, err
	}
	l := &layout{
		inet: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet},
		arp:  &nftables.Table{Name: tableName, Family: nftables.TableFamilyARP},
	}
	metadata := l.set(l.inet, "metadata", nil, nftables.TypeIFName)
	var all []familySets
	for _, f := range families() {
		proto, service := nftables.TypeInetProto, nftables.TypeInetService
		target := []nftables.SetDatatype{f.kind, service}
		s := familySets{
			family:    f,
			guests:    l.set(l.inet, "guests"+f.name, nil, nftables.TypeIFName, f.kind),
			reserved:  l.set(l.inet, "reserved"+f.name, nil, f.kind),
			localhost: l.set(l.inet, "localhost"+f.name, nil, proto, service),
			any:       l.set(l.inet, "any"+f.name, target, proto, service),
			at:        l.set(l.inet, "at"+f.name, target, f.kind, proto, service),
			flows:     l.set(l.inet, "flows"+f.name, nil, f.kind),
		}
		s.flows.Dynamic, s.flows.Size = true, 1<<16
		table := l.inet
		if f.size == 4 {
			table = l.arp
		}
		s.neighbours = l.set(table, "neighbours"+f.name, nil, nftables.TypeIFName, f.kind)
		all = append(all, s)
	}
	l.addRules(all, metadata, most)
	return l, nil
}

// conntrackShare is a variable because a test fills a smaller share.
var conntrackShare uint32 = 16

// connectionsPerGuest returns the number of connections that a guest may have: a
// sixteenth of the host's table. All guests and the host share that table, and an entry
// stays for five days if a guest ensures that nobody ends the connection (TCP_REPAIR).
func connectionsPerGuest() (uint32, error) {
	const least, usual = 1024, 4096
	text, err := get("/proc/sys/net/netfilter/nf_conntrack_max")
	if errors.Is(err, fs.ErrNotExist) {
		return usual, nil // the first rule that needs the module loads it
	}
	if err != nil {
		return 0, err
	}
	most, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("nf_conntrack_max: %w", err)
	}
	return max(uint32(most)/conntrackShare, least), nil
}

// set adds a set, or a map if it has a target.
func (l *layout) set(t *nftables.Table, name string, target []nftables.SetDatatype, key ...nftables.SetDatatype) *nftables.Set {
	s := &nftables.Set{Table: t, Name: name, KeyType: key[0], IsMap: target != nil}
	if len(key) > 1 {
		s.Concatenation = true
		s.KeyType = nftables.MustConcatSetType(key...)
	}
	if s.IsMap {
		s.DataType = nftables.MustConcatSetType(target...)
	}
	l.sets = append(l.sets, s)
	return s
}

func (l *layout) chain(name string) *nftables.Chain {
	c := &nftables.Chain{Table: l.inet, Name: name}
	l.chains = append(l.chains, c)
	return c
}

func (l *layout) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	c := l.chain(name)
	c.Type, c.Hooknum, c.Priority, c.Policy = kind, hook, &priority, &accept
	return c
}

func (l *layout) add(c *nftables.Chain, words ...exprs) {
	l.rules = append(l.rules, &nftables.Rule{Table: c.Table, Chain: c, Exprs: rule(words...)})
}

// version identifies a layout: two with one version are the same.
func (l *layout) version() (string, error) {
	b, err := json.Marshal([]any{l.sets, l.chains, l.rules})
	if err != nil {
		return "", fmt.Errorf("describe table %s: %w", tableName, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8]), nil
}

// replace rewrites the tables, with these elements.
func (l *layout) replace(elements elementSets) error {
	return l.commit(func(conn *nftables.Conn) error {
		l.remove(conn)
		conn.AddTable(l.inet)
		conn.AddTable(l.arp)
		for _, s := range l.sets {
			if err := conn.AddSet(s, nil); err != nil {
				return err
			}
			if err := addElements(conn, s, elements[s.Name]); err != nil {
				return err
			}
		}
		for _, c := range l.chains {
			conn.AddChain(c)
		}
		for _, r := range l.rules {
			conn.AddRule(r)
		}
		return nil
	})
}

// remove removes the tables. Adding them first makes it succeed whether or not
// they were there.
func (l *layout) remove(conn *nftables.Conn) {
	for _, t := range []*nftables.Table{l.inet, l.arp} {
		conn.AddTable(t)
		conn.DelTable(t)
	}
}

// ensureTables creates tables without guests unless there are tables.
func ensureTables() (undo func() error, err error) {
	parts, err := partsOfTables()
	if err != nil || len(parts) > 0 {
		return func() error { return nil }, err
	}
	l, err := newLayout()
	if err != nil {
		return nil, err
	}
	return removeTables, l.replace(nil)
}

func removeTables() error {
	l, err := newLayout()
	if err != nil {
		return err
	}
	return l.commit(func(conn *nftables.Conn) error { l.remove(conn); return nil })
}

// commit carries out one transaction: all of it or nothing.
func (l *layout) commit(write func(conn *nftables.Conn) error) error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(roomForAll))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	if err = write(conn); err == nil {
		err = conn.Flush()
	}
	if err != nil {
		err = fmt.Errorf("write nftables table %s: %w", tableName, err)
	}
	return errors.Join(err, conn.CloseLasting())
}

// roomForAll enlarges the buffers for a transaction of ten thousand guests, which is
// one message to the kernel and an acknowledgement for each of its parts.
func roomForAll(c *netlink.Conn) error {
	const most = 64 << 20 // a bound, not an allocation
	return errors.Join(c.SetWriteBuffer(most), c.SetReadBuffer(most))
}

func (l *layout) addRules(fs []familySets, metadata *nftables.Set, most uint32) {
	filter, nat := nftables.ChainTypeFilter, nftables.ChainTypeNAT
	// Before conntrack (-200), so that it records nothing forged.
	const raw, afterConntrack, afterNAT = -300, -150, 110

	l.withholdMetadata(fs, metadata)
	source := l.chain("source")
	for _, f := range fs {
		// A guest is root of its namespace and may route 127.0.0.0/8 to the host,
		// where others (kube-proxy, docker) may have turned route_localnet on.
		l.add(source, f.matches(), f.addrIn(f.dst, f.local), verdict(expr.VerdictDrop))
		if f.size == 16 {
			// Linux accepts a packet for an address of lo on any device; only ::1
			// itself is out of reach.
			l.add(source, f.matches(), f.addrIn(f.dst, localhosts6), verdict(expr.VerdictDrop))
		}
		l.add(source, f.matches(), f.deviceAndSource(expr.MetaKeyIIFNAME), in(f.guests), exprs{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "honest"}})
		if f.size == 16 {
			// Neighbour discovery may come only from eth0's link-local address: the host
			// remembers whoever asks. Router advertisements and redirects are never
			// allowed.
			l.add(source, f.matches(), f.deviceAndSource(expr.MetaKeyIIFNAME), in(f.neighbours), icmp(unix.IPPROTO_ICMPV6, 135, 136), verdict(expr.VerdictAccept))
		}
	}
	l.add(source, verdict(expr.VerdictDrop))
	guard := l.base("guard", filter, nftables.ChainHookPrerouting, raw)
	l.add(guard, fromGuest(), jump(source))

	bound := l.base("bound", filter, nftables.ChainHookPrerouting, afterConntrack)
	for _, f := range fs {
		l.add(bound, fromGuest(), isNew(), f.matches(), exprs{f.load(f.src, reg(0))}, countsOver(f.flows, most), verdict(expr.VerdictDrop))
	}
	// With ARP, too, the host remembers whoever asks. (ARP numbers its hooks differently: 0 is input.)
	arp := l.base("input", filter, nftables.ChainHookRef(0), 0)
	arp.Table = l.arp
	for _, f := range fs {
		if f.size == 4 {
			l.add(arp, fromGuest(), arpSource(), notIn(f.neighbours), verdict(expr.VerdictDrop))
		}
	}

	forwards := l.chain("forwards")
	for _, f := range fs {
		l.add(forwards, f.matches(), exprs{f.load(f.dst, reg(0))}, in(f.reserved), verdict(expr.VerdictReturn))
		// A packet to loopback comes from the host only if chain output has changed its
		// source; addresses 127.x.y.1 belong to guests that share the host's network.
		l.add(forwards, f.matches(), f.addrIn(f.dst, f.local), f.addrNot(f.src, f.gateway), verdict(expr.VerdictReturn))
	}
	for _, f := range fs {
		l.add(forwards, f.matches(), exprs{f.load(f.dst, reg(0))}, loadPort(f.size/4), f.dnat(f.at))
		l.add(forwards, f.matches(), loadPort(0), f.dnat(f.any))
	}
	prerouting := l.base("prerouting", nat, nftables.ChainHookPrerouting, -100)
	l.add(prerouting, ofHost(), jump(forwards))
	translate := l.base("translate", nat, nftables.ChainHookOutput, -100)
	l.add(translate, ofHost(), jump(forwards))

	forward := l.base("forward", filter, nftables.ChainHookForward, 0)
	l.add(forward, toGuest(), established(), verdict(expr.VerdictAccept))
	l.add(forward, toGuest(), destinationTranslated(), verdict(expr.VerdictAccept))
	l.add(forward, toGuest(), reject())

	postrouting := l.base("postrouting", nat, nftables.ChainHookPostrouting, 100)
	l.add(postrouting, fromGuest(), toElsewhere(), masquerade())
	// A guest that reaches itself through a forward must not see its own address as the peer's.
	for _, f := range fs {
		l.add(postrouting, f.matches(), f.deviceAndSource(expr.MetaKeyOIFNAME), in(f.guests), masquerade())
	}

	output := l.base("output", filter, nftables.ChainHookOutput, raw)
	input := l.base("input", filter, nftables.ChainHookInput, afterNAT)
	for _, f := range fs {
		l.add(output, f.matches(), f.addrIs(f.src, f.loopback), f.addrIs(f.dst, f.loopback),
			loadPort(0), in(f.localhost), f.setSource(f.gateway))
		l.add(input, fromGuest(), f.matches(), f.addrIs(f.src, f.loopback), f.addrIs(f.dst, f.gateway),
			f.setDest(f.loopback))
	}
	// A guest's packet to itself leaves by the device that it came in by. No redirect
	// may suggest that the guest can be reached without the host.
	l.add(output, toGuest(), icmp(unix.IPPROTO_ICMP, 5, 5), verdict(expr.VerdictDrop))
	l.add(output, toGuest(), icmp(unix.IPPROTO_ICMPV6, 137, 137), verdict(expr.VerdictDrop))
}
