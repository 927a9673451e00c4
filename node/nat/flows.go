package nat

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

// endFlows makes conntrack forget the connections which the forwards would
// lead elsewhere, were they new: those through a forward that is gone, and UDP
// to a port that was the host's own until now (a resolver asks from one port
// for ever, and would never meet the guest).
//
// Reading conntrack takes long on a busy host, so this is only done when the
// forwards are not those of the last time. That is remembered after it was
// done: killed in between, the next Sync does it again.
func endFlows(host *netlink.Handle, ws []inward) error {
	f, err := os.OpenFile(lockPath, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the list of last forwards: %w", err)
	}
	defer f.Close()
	last, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("read the list of last forwards: %w", err)
	}
	now := text(ws)
	if now == string(last) {
		return nil
	}
	filter, err := newFlowFilter(host, ws)
	if err != nil {
		return err
	}
	for _, fam := range families() {
		if err := deleteFlows(netlink.InetFamily(fam.number), filter); err != nil {
			return fmt.Errorf("end the connections of former forwards: %w", err)
		}
	}
	// The text is written over itself, shortest first: what a kill leaves is
	// either list, or one that equals neither.
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("write the list of last forwards: %w", err)
	}
	if _, err := f.WriteAt([]byte(now), 0); err != nil {
		return fmt.Errorf("write the list of last forwards: %w", err)
	}
	return nil
}

// deleteFlows asks again when the table has changed while it was read, and
// then takes what it got: a busy table never holds still.
func deleteFlows(fam netlink.InetFamily, filter *flowFilter) error {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	for range 3 {
		if _, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, fam, filter); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return nil
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
