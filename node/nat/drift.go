package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/probe"
)

// Drift returns, by XID, what is missing of what Attach and Sync made for running
// guests. Calling Attach for the guest, and Sync, restores it.
func Drift(ctx context.Context, guests []Guest) (map[int][]string, error) {
	if len(guests) == 0 {
		return nil, nil
	}
	gone, err := drift(ctx, guests)
	if err != nil {
		return nil, fmt.Errorf("look at private networks: %w", err)
	}
	return gone, nil
}

func drift(ctx context.Context, guests []Guest) (map[int][]string, error) {
	unlock, err := lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var all []string // missing for all guests
	whole, err := tablesHold(guests)
	if err != nil {
		return nil, err
	}
	if !whole {
		all = append(all, fmt.Sprintf("nftables table inet %[1]s or arp %[1]s is not what it was", tableName))
	}
	for _, key := range []string{forward4, forward6} {
		on, err := get(key)
		if err == nil && on == "0" {
			all = append(all, fmt.Sprintf("%s is %s", key, on))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	l, err := readLinks()
	if err != nil {
		return nil, err
	}
	gone := map[int][]string{}
	for _, g := range guests {
		if texts := append(slices.Clone(all), l.drift(g.XID)...); texts != nil {
			gone[g.XID] = texts
		}
	}
	return gone, nil
}

// tablesHold reports whether the tables are as the last Sync left them, and whether
// that Sync included these guests.
func tablesHold(guests []Guest) (bool, error) {
	ports, err := probe.EphemeralPorts()
	if err != nil {
		return false, err
	}
	last, err := readRecord()
	if err != nil {
		return false, err
	}
	if len(without(Want{Guests: guests}, last.Want).Guests) > 0 {
		return false, nil
	}
	l, err := newLayout()
	if err != nil {
		return false, err
	}
	now, err := l.readState(last, ports)
	if err != nil || now.elements == nil || now.recorded {
		return now.recorded && !now.empty, err
	}
	want := last.Want.elements(resolveAll(last.Want.Guests), ports)
	for _, s := range l.sets {
		if len(missing(now.elements[s.Name], want[s.Name]))+len(missing(want[s.Name], now.elements[s.Name])) > 0 {
			return false, nil
		}
	}
	// Somebody changed another table. Remember it, so that ours are not read again.
	last.Generation = now.generation
	return true, last.write()
}

// links describes our devices on the host.
type links struct {
	index  map[string]int // by device name
	up     map[string]bool
	at     map[onLink]bool
	routes map[onLink]bool
}

// onLink is an address, or the destination of a route, and the index of a device.
type onLink struct {
	addr netip.Addr
	dev  int
}

// drift returns what is missing or wrong at the host's end of a guest's veth.
func (l *links) drift(xid int) (gone []string) {
	name := deviceName(xid)
	dev, there := l.index[name]
	if !there {
		return []string{fmt.Sprintf("device %s is gone", name)}
	}
	if !l.up[name] {
		gone = append(gone, fmt.Sprintf("device %s is down", name))
	}
	for _, f := range families() {
		gateway, routed := l.at[onLink{f.gateway, dev}], l.routes[onLink{f.address(xid), dev}]
		if have, err := familiesOf(name); f.size == 16 && !(gateway && routed) && err == nil && len(have) == 1 {
			continue // without IPv6
		}
		if !gateway {
			gone = append(gone, fmt.Sprintf("address %s is gone from %s", f.gateway, name))
		}
		if !routed {
			gone = append(gone, fmt.Sprintf("the route to %s is gone from %s", f.address(xid), name))
		}
	}
	return gone
}

// readLinks reads all devices, addresses and routes. It parses only the attributes
// that it needs, as there may be thousands.
func readLinks() (*links, error) {
	l, err := readDevices()
	if err != nil {
		return nil, err
	}
	if err := dump(unix.RTM_GETADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC), func(m []byte) {
		if len(m) < unix.SizeofIfAddrmsg {
			return
		}
		head := nl.DeserializeIfAddrmsg(m)
		for kind, value := range attributes(m[unix.SizeofIfAddrmsg:]) {
			if kind == unix.IFA_ADDRESS { // without a peer, IFA_LOCAL is the same
				addr, _ := netip.AddrFromSlice(value)
				l.at[onLink{addr, int(head.Index)}] = true
			}
		}
	}); err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	if err := dump(unix.RTM_GETROUTE, nl.NewIfAddrmsg(unix.AF_UNSPEC), func(m []byte) {
		if len(m) < unix.SizeofRtMsg {
			return
		}
		var to onLink
		for kind, value := range attributes(m[unix.SizeofRtMsg:]) {
			switch kind {
			case unix.RTA_DST:
				to.addr, _ = netip.AddrFromSlice(value)
			case unix.RTA_OIF:
				to.dev = int(binary.NativeEndian.Uint32(value))
			}
		}
		l.routes[to] = true
	}); err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	return l, nil
}

func dump(message int, head nl.NetlinkRequestData, visit func(m []byte), more ...nl.NetlinkRequestData) error {
	ask := head.Serialize()
	for _, d := range more {
		ask = append(ask, d.Serialize()...)
	}
	msgs, err := linux.Netlink(unix.NETLINK_ROUTE, uint16(message), unix.NLM_F_DUMP, ask)
	for _, m := range msgs {
		visit(m)
	}
	return err
}

// readDevices is readLinks without addresses and routes.
func readDevices() (*links, error) {
	l := &links{index: map[string]int{}, up: map[string]bool{}, at: map[onLink]bool{}, routes: map[onLink]bool{}}
	const filterSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h
	skipStats := nl.NewRtAttr(unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, filterSkipStats))
	if err := dump(unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), func(m []byte) {
		if len(m) < unix.SizeofIfInfomsg {
			return
		}
		info := nl.DeserializeIfInfomsg(m)
		var name string
		mine := false
		for kind, value := range attributes(m[unix.SizeofIfInfomsg:]) {
			switch kind {
			case unix.IFLA_IFNAME:
				name = cString(value)
			case unix.IFLA_GROUP:
				mine = len(value) == 4 && binary.NativeEndian.Uint32(value) == group
			}
		}
		if mine {
			l.index[name], l.up[name] = int(info.Index), info.Flags&unix.IFF_UP != 0
		}
	}, skipStats); err != nil {
		return nil, fmt.Errorf("list the host's devices: %w", err)
	}
	return l, nil
}
