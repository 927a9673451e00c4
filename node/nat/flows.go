package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

// endFlows makes conntrack forget the connections which the forwards would
// lead elsewhere, were they new: those through a forward that is gone, and UDP
// to a port that was the host's own until now (a resolver asks from one port
// for ever, and would never meet the guest).
//
// Reading conntrack takes tens of milliseconds even where it is empty, so it is
// only done when the forwards of last time leave no other way. They are written
// down after it was done: killed in between, the next Sync does it again.
func endFlows(host *netlink.Handle, w Want, ws []inward) error {
	b, err := os.ReadFile(lockPath)
	if err != nil {
		return fmt.Errorf("read the list of last forwards: %w", err)
	}
	last, now := string(b), text(ws)
	if last == now {
		return nil
	}
	if stale(last, now, w) {
		ff, err := newFlowFilter(host, ws)
		if err == nil {
			err = ff.end()
		}
		if err != nil {
			return fmt.Errorf("end the connections of former forwards: %w", err)
		}
	}
	// Not beside and renamed, for this is the file that is locked. What a kill
	// leaves of the list differs from it, and the next Sync looks once too often.
	if err := os.WriteFile(lockPath, []byte(now), 0o600); err != nil {
		return fmt.Errorf("write the list of last forwards: %w", err)
	}
	return nil
}

// stale says whether conntrack may know connections to forget, when the
// forwards were last and are now.
func stale(last, now string, w Want) bool {
	alive := map[netip.Addr]bool{}
	for _, g := range w.Guests {
		for _, f := range families() {
			alive[f.address(g.XID)] = true
		}
	}
	before, after := lines(last), lines(now)
	for line := range before {
		_, to, _ := strings.Cut(line, " to ")
		guest, err := netip.ParseAddrPort(to)
		// A dead guest's connections are dead; the port's next owner sees to its UDP.
		if !after[line] && (err != nil || alive[guest.Addr()]) {
			return true
		}
	}
	for line := range after {
		if !before[line] && strings.HasPrefix(line, string(port.UDP)) {
			return true
		}
	}
	return false
}

func lines(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		set[strings.TrimSuffix(line, "\n")] = true
	}
	return set
}

type flowKey struct {
	addr  netip.Addr // invalid: each of the family
	v4    bool
	proto uint8
	port  uint16
}

// flowFilter knows where the forwards lead.
type flowFilter struct {
	forwards map[flowKey]netip.AddrPort
	host     map[netip.Addr]bool
	pools    [2]netip.Prefix
}

func newFlowFilter(host *netlink.Handle, ws []inward) (*flowFilter, error) {
	ff := &flowFilter{forwards: map[flowKey]netip.AddrPort{}, host: map[netip.Addr]bool{}}
	for i, f := range families() {
		ff.pools[i] = f.pool
	}
	for _, w := range ws {
		ff.forwards[flowKey{w.addr, w.to.Addr().Is4(), protoNumber(w.proto), w.port}] = w.to
	}
	addrs, err := again(func() ([]netlink.Addr, error) { return host.AddrList(nil, netlink.FAMILY_ALL) })
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

// end makes conntrack forget the connections that match.
func (ff *flowFilter) end() error {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	all, err := whole(func() ([]*netlink.ConntrackFlow, error) {
		return h.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(unix.AF_UNSPEC))
	})
	if err != nil {
		return err
	}
	for _, f := range families() {
		if !slices.ContainsFunc(all, func(flow *netlink.ConntrackFlow) bool {
			return flow.FamilyType == f.number && ff.MatchConntrackFlow(flow)
		}) {
			continue
		}
		if _, err := whole(func() (uint, error) {
			return h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(f.number), ff)
		}); err != nil {
			return err
		}
	}
	return nil
}

// whole asks again when the kernel's table changed while it was read. A busy
// conntrack never holds still: the third answer is taken as it is, and lacks no
// more than connections of that moment.
func whole[T any](ask func() (T, error)) (answer T, err error) {
	for range 3 {
		if answer, err = ask(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return answer, err
		}
	}
	return answer, nil
}

// MatchConntrackFlow says whether a connection is one to forget.
func (ff *flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	dst, ok1 := netip.AddrFromSlice(flow.Forward.DstIP)
	from, ok2 := netip.AddrFromSlice(flow.Reverse.SrcIP)
	if !ok1 || !ok2 {
		return false
	}
	dst, from = dst.Unmap(), from.Unmap()
	proto := flow.Forward.Protocol
	to, forwarded := ff.forwards[flowKey{dst, dst.Is4(), proto, flow.Forward.DstPort}]
	if !forwarded {
		to, forwarded = ff.forwards[flowKey{netip.Addr{}, dst.Is4(), proto, flow.Forward.DstPort}]
	}
	if from != dst { // translated
		ours := ff.pools[0].Contains(from) || ff.pools[1].Contains(from)
		return ours && (!forwarded || to != netip.AddrPortFrom(from, flow.Reverse.SrcPort))
	}
	return forwarded && proto == protoNumber(port.UDP) && ff.host[dst]
}
