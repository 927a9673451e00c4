package nat

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// ensureVeth returns the host's end of the guest's veth, and creates the veth if
// necessary. A new one is down.
func ensureVeth(host *netlink.Handle, guest *namespace, xid int) (veth netlink.Link, made bool, err error) {
	name := deviceName(xid)
	inside, err := findLink(guest.Handle, "eth0")
	if err != nil {
		return nil, false, err
	}
	if veth, err = findLink(host, name); err != nil {
		return nil, false, err
	}
	if veth != nil && !isOurs(veth) {
		return nil, false, fmt.Errorf("the host has a device %s that is not ours: rename it", name)
	}
	if veth != nil && inside != nil &&
		veth.Attrs().ParentIndex == inside.Attrs().Index && inside.Attrs().ParentIndex == veth.Attrs().Index {
		return veth, false, nil
	}
	if inside != nil {
		return nil, false, fmt.Errorf("the guest has an eth0 already that is not the peer of %s", name)
	}
	if veth != nil {
		// It belongs to a guest with this XID that has just died: the kernel removes it later.
		if err := deleteLink(host, veth); err != nil {
			return nil, false, err
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.Group = group
	if attrs.MTU, err = uplinkMTU(host); err != nil {
		return nil, false, err
	}
	v := netlink.NewVeth(attrs)
	v.PeerName = "eth0"
	v.PeerHardwareAddr = hardwareAddr(xid)
	v.PeerNamespace = netlink.NsFd(int(guest.file.Fd()))
	if err := host.LinkAdd(v); err != nil {
		return nil, false, fmt.Errorf("make veth %s: %w", name, err)
	}
	return v, true, nil
}

// configureVeth adds the gateway's addresses to the host's end, and routes to the
// guest's.
func configureVeth(host *netlink.Handle, veth netlink.Link, xid int) error {
	name := veth.Attrs().Name
	for _, key := range []string{
		"accept_ra",  // the guard drops a guest's router advertisements; this holds without it
		"accept_dad", // while the link-local address is tentative, for a second or two, nobody could ask for the guest
	} {
		if err := setIfThere(ipv6Conf(name, key), "0"); err != nil {
			return err
		}
	}
	fs, err := familiesOf(name)
	if err != nil {
		return err
	}
	for _, f := range fs {
		if err := host.AddrReplace(veth, address(single(f.gateway))); err != nil {
			return fmt.Errorf("put %s on %s: %w", f.gateway, name, err)
		}
	}
	if err := host.LinkSetUp(veth); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	for _, f := range fs {
		if err := host.RouteReplace(&netlink.Route{
			LinkIndex: veth.Attrs().Index, Dst: ipNet(single(f.address(xid))), Scope: netlink.SCOPE_LINK,
		}); err != nil {
			return fmt.Errorf("route %s to %s: %w", f.address(xid), name, err)
		}
	}
	return nil
}

// uplinkMTU returns the smallest MTU of the default routes' devices, at most
// Ethernet's, so that a guest never announces a packet size that cannot reach it.
func uplinkMTU(host *netlink.Handle) (int, error) {
	mtu := 1500
	routes, err := defaultRoutes(host, netlink.FAMILY_V4)
	if err != nil {
		return 0, err
	}
	for _, index := range routes {
		l, err := host.LinkByIndex(index)
		if err != nil {
			return 0, fmt.Errorf("find device %d of the default route: %w", index, err)
		}
		mtu = min(mtu, l.Attrs().MTU)
	}
	return mtu, nil
}

// removeOthers removes the veths of all other guests. If known, last holds the guests
// that have veths; otherwise it looks at all devices.
func removeOthers(host *netlink.Handle, guests, last []Guest, known bool) error {
	wanted := map[string]bool{}
	for _, g := range guests {
		wanted[deviceName(g.XID)] = true
	}
	if known {
		for _, g := range last {
			if wanted[deviceName(g.XID)] {
				continue
			}
			l, err := findLink(host, deviceName(g.XID))
			if err == nil && l != nil && isOurs(l) {
				err = deleteLink(host, l)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	links, err := linux.Dump(host.LinkList)
	if err != nil {
		return fmt.Errorf("list the host's devices: %w", err)
	}
	for _, l := range links {
		if isOurs(l) && !wanted[l.Attrs().Name] {
			if err := deleteLink(host, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// isOurs reports whether Attach made the device.
func isOurs(l netlink.Link) bool { return l.Type() == "veth" && l.Attrs().Group == group }

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// address turns off IPv6 duplicate address detection, which takes a second and can
// find nothing: addresses are computed from the XID.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// findLink returns nil if there is no such device.
func findLink(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", name, err)
	}
	return l, nil
}

// deleteLink returns nil if the device is gone already: a veth can disappear with
// its guest at any time.
func deleteLink(host *netlink.Handle, l netlink.Link) error {
	if err := host.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove device %s: %w", l.Attrs().Name, err)
	}
	return nil
}
