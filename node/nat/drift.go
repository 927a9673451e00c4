package nat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Drift tells by XID what is gone of what Attach and Sync made for running
// guests. Attach of the guest, and Sync, put it back.
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
	var all []string // of what all guests need
	whole, err := Holds(ctx, guests)
	if err != nil {
		return nil, err
	}
	if !whole {
		all = append(all, fmt.Sprintf("rules are gone from nftables table inet %s", tableName))
	}
	for _, key := range []string{forward4, forward6} {
		on, err := get(key)
		if err == nil && on != "1" {
			all = append(all, fmt.Sprintf("%s is %s", key, on))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer host.Close()
	links, err := again(host.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the host's devices: %w", err)
	}
	veths := map[string]netlink.Link{}
	for _, l := range links {
		if ours(l) {
			veths[l.Attrs().Name] = l
		}
	}
	on, err := addressesByDevice(host)
	if err != nil {
		return nil, err
	}
	to, err := routesByDevice(host)
	if err != nil {
		return nil, err
	}
	gone := map[int][]string{}
	for _, g := range guests {
		gone[g.XID] = append(gone[g.XID], all...)
		add := func(format string, args ...any) { gone[g.XID] = append(gone[g.XID], fmt.Sprintf(format, args...)) }
		name := deviceName(g.XID)
		veth := veths[name]
		if veth == nil {
			add("device %s is gone", name)
			continue
		}
		if veth.Attrs().Flags&net.FlagUp == 0 {
			add("device %s is down", name)
		}
		fs, err := familiesOf(name)
		if err != nil {
			return nil, err
		}
		for _, f := range fs {
			at := func(a netip.Addr) onLink { return onLink{veth.Attrs().Index, a} }
			if !on[at(f.gateway)] {
				add("address %s is gone from %s", f.gateway, name)
			}
			if !to[at(f.address(g.XID))] {
				add("the route to %s is gone from %s", f.address(g.XID), name)
			}
		}
	}
	return gone, nil
}

// onLink is an address, or a route to one, on a device.
type onLink struct {
	index int
	addr  netip.Addr
}

func addressesByDevice(host *netlink.Handle) (map[onLink]bool, error) {
	addrs, err := again(func() ([]netlink.Addr, error) { return host.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	on := map[onLink]bool{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			on[onLink{a.LinkIndex, ip.Unmap()}] = true
		}
	}
	return on, nil
}

func routesByDevice(host *netlink.Handle) (map[onLink]bool, error) {
	to := map[onLink]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := again(func() ([]netlink.Route, error) { return host.RouteList(nil, family) })
		if err != nil {
			return nil, fmt.Errorf("list the host's routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			if ip, ok := netip.AddrFromSlice(r.Dst.IP); ok {
				to[onLink{r.LinkIndex, ip.Unmap()}] = true
			}
		}
	}
	return to, nil
}
