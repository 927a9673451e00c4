package netctx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"path/filepath"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// addedByUs marks an address as added by vsnode (IFA_PROTO, kernel 5.18; 1 to 3
// are the kernel's own). A state file could get lost; the kernel's mark cannot.
const addedByUs = 'v'

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// deviceAddress is an address of a device.
type deviceAddress struct {
	prefix netip.Prefix
	ours   bool
}

// Appearance is how an IPv4 address appears on its device.
type Appearance struct {
	Label     string     // IFA_LABEL, as "eth0:www"
	Broadcast netip.Addr // instead of the prefix's last address
}

// AddAddresses adds addresses to a device, sets it up and announces new ones to its
// neighbours, so that they forget who had the address before. Addresses that are there
// already stay. It returns those that vsnode added, now or in an earlier call: those
// that RemoveAddresses would remove.
//
// Called again after it was killed, it does the rest. An announcement may then be
// missing, and neighbours may use the old owner until their cache expires.
func AddAddresses(ctx context.Context, dev string, prefixes []netip.Prefix, looks map[netip.Addr]Appearance) (added []netip.Prefix, err error) {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", dev, err)
	}
	have, err := addresses(link.Attrs().Index)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", dev, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", dev, err)
	}
	for _, p := range prefixes {
		if err := ctx.Err(); err != nil {
			return added, err
		}
		old, there := have[p.Addr()]
		if !there {
			switch err := addAddress(link.Attrs().Index, p, looks[p.Addr()]); {
			case errors.Is(err, unix.EEXIST): // added by somebody else in the meantime
				continue
			case err != nil:
				return added, fmt.Errorf("add %s to %s: %w", p, dev, err)
			}
		}
		if there && !old.ours {
			continue
		}
		added = append(added, p)
		if there {
			continue
		}
		if err := announce(link.Attrs(), p.Addr()); err != nil {
			return added, fmt.Errorf("announce %s on %s: %w", p.Addr(), dev, err)
		}
	}
	return added, nil
}

// RemoveAddresses removes addresses that AddAddresses added to a device. It skips
// addresses of the host, and those that are gone, perhaps with the device. The caller
// must know whether another guest still uses one.
func RemoveAddresses(ctx context.Context, dev string, prefixes []netip.Prefix) error {
	link, err := netlink.LinkByName(dev)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find device %s: %w", dev, err)
	}
	// One at a time: of two that change promote_secondaries, one would turn it off
	// while the other removes, and other guests' addresses would go, too.
	unlock, err := lock(ctx, addressesLock)
	if err != nil {
		return err
	}
	defer unlock()
	for _, p := range prefixes {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Read again each time: a removal may promote a secondary address.
		have, err := addresses(link.Attrs().Index)
		if err != nil {
			return fmt.Errorf("list addresses of %s: %w", dev, err)
		}
		old, there := have[p.Addr()]
		if !there || !old.ours {
			continue
		}
		if err := removeAddress(link.Attrs(), old, have); err != nil {
			return fmt.Errorf("remove %s from %s: %w", old.prefix, dev, err)
		}
	}
	return nil
}

// MissingAddresses returns the addresses that the host itself does not have on the
// device, including those that vsnode has added: vsnode adds them, and may remove them.
func MissingAddresses(dev string, prefixes []netip.Prefix) ([]netip.Prefix, error) {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", dev, err)
	}
	have, err := addresses(link.Attrs().Index)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", dev, err)
	}
	var missing []netip.Prefix
	for _, p := range prefixes {
		if old, there := have[p.Addr()]; !there || old.ours {
			missing = append(missing, p)
		}
	}
	return missing, nil
}

// EnsureLoopback6 adds the address that stands for a guest's ::1 to lo. It does
// nothing if IPv6 is off. It does not list the addresses of lo, of which there are a
// thousand with a thousand guests.
func EnsureLoopback6(ctx context.Context, addr netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// As `ip link set lo up`: flags and their mask.
	up := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(up[4:], loopback)
	binary.NativeEndian.PutUint32(up[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(up[12:], unix.IFF_UP)
	if _, err := linux.Netlink(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, 0, up); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	err := addAddress(loopback, netip.PrefixFrom(addr, addr.BitLen()), Appearance{})
	// EACCES means the sysctl disable_ipv6, EOPNOTSUPP a kernel without IPv6.
	for _, fine := range []error{unix.EEXIST, unix.EACCES, unix.EOPNOTSUPP, unix.EAFNOSUPPORT} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("add %s to lo: %w", addr, err)
	}
	return nil
}

// loopback is the index of lo in every network namespace (LOOPBACK_IFINDEX of
// net/flow.h).
const loopback = 1

// DropLoopback6 removes what EnsureLoopback6 added to lo. It does not list the addresses
// either.
func DropLoopback6(ctx context.Context, addr netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	on := ifaddr(loopback, netip.PrefixFrom(addr, addr.BitLen()))
	found, err := linux.Netlink(unix.NETLINK_ROUTE, unix.RTM_GETADDR, 0, on)
	for _, m := range found {
		if a, _, perr := parseAddress(m); perr == nil && a.ours {
			_, err = linux.Netlink(unix.NETLINK_ROUTE, unix.RTM_DELADDR, 0, on)
		}
	}
	// EADDRNOTAVAIL: it is gone. The others mean that there is no IPv6.
	for _, fine := range []error{unix.EADDRNOTAVAIL, unix.EOPNOTSUPP, unix.EAFNOSUPPORT} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove %s from lo: %w", addr, err)
	}
	return nil
}

// ifaddr returns a message that names an address of a device (rtnetlink(7)).
func ifaddr(index int, p netip.Prefix) []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1] = unix.AF_INET6, uint8(p.Bits())
	if p.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	if p.Addr().IsLinkLocalUnicast() {
		b[3] = unix.RT_SCOPE_LINK
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	b = linux.NetlinkAttribute(b, unix.IFA_LOCAL, p.Addr().AsSlice())
	return linux.NetlinkAttribute(b, unix.IFA_ADDRESS, p.Addr().AsSlice())
}

func addAddress(index int, p netip.Prefix, look Appearance) error {
	b := ifaddr(index, p)
	add := func(kind uint16, value []byte) { b = linux.NetlinkAttribute(b, kind, value) }
	add(ifaProto, []byte{addedByUs})
	// The guest binds it at once and cannot wait for duplicate address detection.
	add(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, unix.IFA_F_NODAD))
	switch {
	case look.Broadcast.Is4() && p.Addr().Is4():
		add(unix.IFA_BROADCAST, look.Broadcast.AsSlice())
	case p.Addr().Is4() && p.Bits() < 31:
		add(unix.IFA_BROADCAST, broadcast(p))
	}
	if look.Label != "" && p.Addr().Is4() {
		add(unix.IFA_LABEL, append([]byte(look.Label), 0))
	}
	if p.Addr().Is6() {
		// Deprecated from the start: sockets bound to it use it, but the kernel
		// does not choose it as the source of the host's or a nat guest's packets.
		add(unix.IFA_CACHEINFO, cacheInfo(0, forever))
	}
	_, err := linux.Netlink(unix.NETLINK_ROUTE, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b)
	return err
}

// forever is INFINITY_LIFE_TIME of net/addrconf.h.
const forever = ^uint32(0)

// cacheInfo is struct ifa_cacheinfo: lifetimes in seconds, and when the address
// was made and changed, which the kernel fills in.
func cacheInfo(preferred, valid uint32) []byte {
	b := binary.NativeEndian.AppendUint32(nil, preferred)
	b = binary.NativeEndian.AppendUint32(b, valid)
	return append(b, make([]byte, 8)...)
}

func broadcast(p netip.Prefix) []byte {
	four := p.Addr().As4()
	b := binary.BigEndian.Uint32(four[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, b)
}

// removeAddress removes only the given address. By default the kernel removes all
// secondary addresses of a subnet with the primary one: other guests', or the host's.
// Which one is primary may change until it is removed.
func removeAddress(link *netlink.LinkAttrs, a deviceAddress, all map[netip.Addr]deviceAddress) (err error) {
	if a.prefix.Addr().Is4() {
		for _, o := range all {
			if o.prefix != a.prefix && o.prefix.Masked() == a.prefix.Masked() {
				restore, err := promoteSecondaries(link.Name)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, restore()) }()
				break
			}
		}
	}
	_, err = linux.Netlink(unix.NETLINK_ROUTE, unix.RTM_DELADDR, 0, ifaddr(link.Index, a.prefix))
	if errors.Is(err, unix.EADDRNOTAVAIL) { // gone already
		return nil
	}
	return err
}

// promoteSecondaries makes the kernel keep secondary addresses, and returns a
// function that restores the setting.
func promoteSecondaries(dev string) (restore func() error, err error) {
	path := filepath.Join("/proc/sys/net/ipv4/conf", dev, "promote_secondaries")
	old, err := linux.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := linux.WriteFile(path, []byte("1"), 0); err != nil {
		return nil, err
	}
	return func() error { return linux.WriteFile(path, old, 0) }, nil
}

// HostAddress describes where the host has an address.
type HostAddress struct {
	Index int  // index of the device
	Ours  bool // AddAddresses added it
}

// HostAddresses returns all addresses of the host.
func HostAddresses() (map[netip.Addr]HostAddress, error) {
	on := map[netip.Addr]HostAddress{}
	err := eachAddress(func(a deviceAddress, index int) { on[a.prefix.Addr()] = HostAddress{index, a.ours} })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return on, nil
}

// addresses returns the addresses of a device.
func addresses(index int) (map[netip.Addr]deviceAddress, error) {
	have := map[netip.Addr]deviceAddress{}
	err := eachAddress(func(a deviceAddress, on int) {
		if on == index {
			have[a.prefix.Addr()] = a
		}
	})
	return have, err
}

// lists counts for tests how often all addresses were listed.
var lists atomic.Int64

// eachAddress calls visit for all addresses of the host, and again for some if
// they change during the listing.
func eachAddress(visit func(a deviceAddress, index int)) error {
	lists.Add(1)
	msgs, err := linux.Netlink(unix.NETLINK_ROUTE, unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg)) // AF_UNSPEC
	if err != nil {
		return err
	}
	for _, m := range msgs {
		a, on, err := parseAddress(m)
		if err != nil {
			return err
		}
		if a.prefix.IsValid() {
			visit(a, on)
		}
	}
	return nil
}

// parseAddress reads an RTM_NEWADDR message (rtnetlink(7)).
func parseAddress(m []byte) (a deviceAddress, index int, err error) {
	if len(m) < unix.SizeofIfAddrmsg {
		return a, 0, errors.New("short address message")
	}
	var addr, local netip.Addr
	for kind, value := range attributes(m[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_ADDRESS: // IPv4: the peer's address, if there is one
			addr, _ = netip.AddrFromSlice(value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case ifaProto:
			a.ours = len(value) == 1 && value[0] == addedByUs
		}
	}
	if local.IsValid() {
		addr = local
	}
	a.prefix = netip.PrefixFrom(addr, int(m[1]))
	return a, int(binary.NativeEndian.Uint32(m[4:])), nil
}

// attributes returns the attributes of a netlink message (netlink(7)), up to the
// first that does not fit. The library's parser panics if the last is not padded.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}
