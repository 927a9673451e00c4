package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
)

// endFlows makes conntrack forget three kinds of connections: those of guests that
// have ended, those that the forwards would now lead elsewhere, and UDP to a port that
// was the host's own until now (a resolver that always asks from one port would never
// reach the guest).
//
// The kernel walks its whole table for each query, which takes milliseconds even if
// the table is empty, so queries are made only for what has changed.
func endFlows(host *netlink.Handle, last, now Want, ws []translation) error {
	qs, gone := flowQueries(last, now, ws)
	if len(qs) == 0 {
		return nil
	}
	if few, err := fewFlows(); err != nil || few {
		qs = []flowQuery{{}} // for all connections: one walk through the table
		if err != nil {
			return err
		}
	}
	ff, err := newFlowFilter(host, ws, gone)
	if err != nil {
		return err
	}
	var over []flow
	for _, q := range qs {
		more, err := q.answer(ff.matches)
		if err != nil {
			return fmt.Errorf("look for connections of former guests and forwards: %w", err)
		}
		over = append(over, more...)
	}
	if err := endAll(over); err != nil {
		return fmt.Errorf("end connections of former guests and forwards: %w", err)
	}
	return nil
}

// flowQuery selects flows of the kernel's table; zero fields match anything.
type flowQuery struct {
	family   byte
	from, to netip.Addr // source of the first packet, and of the answers
	proto    byte
	port     uint16 // where the first packet went
}

// flowQueries returns queries for the flows that may have to be forgotten, given
// the guests before and now. gone holds the addresses of guests that have ended.
func flowQueries(last, now Want, ws []translation) (qs []flowQuery, gone map[netip.Addr]bool) {
	gone = map[netip.Addr]bool{}
	alive := map[int]bool{}
	for _, g := range now.Guests {
		alive[g.XID] = true
	}
	for _, g := range last.Guests {
		if alive[g.XID] {
			continue
		}
		for _, f := range families() {
			a := f.address(g.XID)
			gone[a] = true
			qs = append(qs, flowQuery{family: f.number, from: a}, flowQuery{family: f.number, to: a})
		}
	}
	before := map[translation]bool{}
	for _, g := range last.Guests {
		for _, fw := range g.Forwards {
			for _, w := range resolve(g, fw) {
				w.owner = ""
				before[w] = true
			}
		}
	}
	ask := func(w translation) {
		q := flowQuery{family: familyOf(w.to.Addr()).number, proto: protoNumber(w.proto), port: w.port}
		if !slices.Contains(qs, q) {
			qs = append(qs, q)
		}
	}
	for _, w := range ws {
		w.owner = ""
		if !before[w] && w.proto == port.UDP {
			ask(w)
		}
		delete(before, w)
	}
	for w := range before {
		if !gone[w.to.Addr()] { // otherwise all its flows are removed
			ask(w)
		}
	}
	return qs, gone
}

// fewFlows reports whether reading all flows is as fast as reading some.
func fewFlows() (bool, error) {
	text, err := get("/proc/sys/net/netfilter/nf_conntrack_count")
	if err != nil {
		return false, err
	}
	n, err := strconv.Atoi(text)
	return n < 2000, err
}

// Attributes and flags of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleOrig, ctaTupleReply, ctaID, ctaZone, ctaFilter = 1, 2, 12, 18, 25

	ctaTupleIP, ctaTupleProto                       = 1, 2
	ctaProtoNum, ctaProtoSrcPort, ctaProtoDstPort   = 1, 2, 3
	ctaFilterOrig, ctaFilterReply                   = 1, 2
	filterIPSrc, filterProtoNum, filterProtoDstPort = 1 << 0, 1 << 3, 1 << 5
)

// answer returns the flows that the kernel selects (CTA_FILTER, kernel 5.8) and
// that match.
func (q flowQuery) answer(matches func(flow) bool) (flows []flow, err error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: q.family, Version: nl.NFNETLINK_V0})
	var origFlags, replyFlags uint32
	orig, reply := nested(ctaTupleOrig), nested(ctaTupleReply)
	address := func(tuple *nl.RtAttr, a netip.Addr) {
		tuple.AddRtAttr(ctaTupleIP|unix.NLA_F_NESTED, nil).AddRtAttr(tupleSrc(a), a.AsSlice())
	}
	if q.from.IsValid() {
		origFlags |= filterIPSrc
		address(orig, q.from)
	}
	if q.to.IsValid() {
		replyFlags |= filterIPSrc
		address(reply, q.to)
	}
	if q.proto != 0 {
		origFlags |= filterProtoNum | filterProtoDstPort
		p := orig.AddRtAttr(ctaTupleProto|unix.NLA_F_NESTED, nil)
		p.AddRtAttr(ctaProtoNum, []byte{q.proto})
		p.AddRtAttr(ctaProtoDstPort, bigEndian(q.port))
	}
	if origFlags|replyFlags != 0 {
		f := nested(ctaFilter)
		f.AddRtAttr(ctaFilterOrig, binary.NativeEndian.AppendUint32(nil, origFlags))
		f.AddRtAttr(ctaFilterReply, binary.NativeEndian.AppendUint32(nil, replyFlags))
		req.AddData(f)
	}
	if origFlags != 0 {
		req.AddData(orig)
	}
	if replyFlags != 0 {
		req.AddData(reply)
	}
	// A busy table changes all the time: an interrupted answer lacks only connections
	// that are being made at that moment, and the guests in question make none any more.
	err = req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
		if f, ok := parseFlow(m); ok && matches(f) {
			flows = append(flows, f)
		}
		return true
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		err = nil
	}
	return flows, err
}

func nested(kind int) *nl.RtAttr { return nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil) }

// tupleSrc returns the number of the attribute of a source address (CTA_IP_V4_SRC,
// CTA_IP_V6_SRC).
func tupleSrc(a netip.Addr) int {
	if a.Is4() {
		return 1
	}
	return 3
}

// flow is one connection that conntrack knows.
type flow struct {
	family       byte
	orig         []byte // its tuple, as the kernel sent it
	id, zone     []byte
	proto        byte
	src, dst     netip.Addr
	dport        uint16
	answers      netip.Addr // source address of the answers
	answersSport uint16
}

func parseFlow(m []byte) (f flow, ok bool) {
	if len(m) < nl.SizeofNfgenmsg {
		return f, false
	}
	f.family = m[0]
	for kind, value := range attributes(m[nl.SizeofNfgenmsg:]) {
		switch kind {
		case ctaTupleOrig:
			f.orig = value
			f.proto, f.src, f.dst, _, f.dport = parseTuple(value)
		case ctaTupleReply:
			_, f.answers, _, f.answersSport, _ = parseTuple(value)
		case ctaID:
			f.id = value
		case ctaZone:
			f.zone = value
		}
	}
	return f, f.dst.IsValid() && f.answers.IsValid()
}

func parseTuple(b []byte) (proto byte, src, dst netip.Addr, sport, dport uint16) {
	for kind, value := range attributes(b) {
		for inner, v := range attributes(value) {
			switch {
			case kind == ctaTupleIP && inner%2 == 1: // of IPv4 1 and 2, of IPv6 3 and 4
				src, _ = netip.AddrFromSlice(v)
			case kind == ctaTupleIP:
				dst, _ = netip.AddrFromSlice(v)
			case inner == ctaProtoNum && len(v) == 1:
				proto = v[0]
			case inner == ctaProtoSrcPort && len(v) == 2:
				sport = binary.BigEndian.Uint16(v)
			case inner == ctaProtoDstPort && len(v) == 2:
				dport = binary.BigEndian.Uint16(v)
			}
		}
	}
	return proto, src, dst, sport, dport
}

// endAll makes the kernel forget flows. It uses one socket, as there may be thousands.
func endAll(flows []flow) error {
	if len(flows) == 0 {
		return nil
	}
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer s.Close()
	sockets := map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}
	for _, f := range flows {
		if err := f.end(sockets); err != nil {
			return err
		}
	}
	return nil
}

// end deletes the flow by its id, so that a flow that has replaced it stays.
func (f flow) end(sockets map[int]*nl.SocketHandle) error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.Sockets = sockets
	req.AddData(&nl.Nfgenmsg{NfgenFamily: f.family, Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(ctaTupleOrig|unix.NLA_F_NESTED, f.orig))
	for kind, value := range map[int][]byte{ctaID: f.id, ctaZone: f.zone} {
		if value != nil {
			req.AddData(nl.NewRtAttr(kind, value))
		}
	}
	if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

type flowKey struct {
	addr  netip.Addr // invalid: each of the family
	v4    bool
	proto uint8
	port  uint16
}

// flowFilter holds the destinations of the forwards.
type flowFilter struct {
	forwards map[flowKey]netip.AddrPort
	host     map[netip.Addr]bool
	gone     map[netip.Addr]bool // addresses of guests
	pools    [2]netip.Prefix
}

func newFlowFilter(host *netlink.Handle, ws []translation, gone map[netip.Addr]bool) (*flowFilter, error) {
	ff := &flowFilter{forwards: map[flowKey]netip.AddrPort{}, host: map[netip.Addr]bool{}, gone: gone}
	for i, f := range families() {
		ff.pools[i] = f.pool
	}
	for _, w := range ws {
		ff.forwards[flowKey{w.addr, w.to.Addr().Is4(), protoNumber(w.proto), w.port}] = w.to
	}
	addrs, err := linux.Dump(func() ([]netlink.Addr, error) { return host.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			ff.host[addr.Unmap()] = true
		}
	}
	return ff, nil
}

// matches reports whether a connection should be forgotten.
func (ff *flowFilter) matches(f flow) bool {
	if ff.gone[f.src] || ff.gone[f.answers] {
		return true
	}
	to, forwarded := ff.forwards[flowKey{f.dst, f.dst.Is4(), f.proto, f.dport}]
	if !forwarded {
		to, forwarded = ff.forwards[flowKey{netip.Addr{}, f.dst.Is4(), f.proto, f.dport}]
	}
	if f.answers != f.dst { // translated
		ours := ff.pools[0].Contains(f.answers) || ff.pools[1].Contains(f.answers)
		return ours && (!forwarded || to != netip.AddrPortFrom(f.answers, f.answersSport))
	}
	return forwarded && f.proto == protoNumber(port.UDP) && ff.host[f.dst]
}
