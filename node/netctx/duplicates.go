package netctx

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// neighbourWait bounds a probe. RFC 5227 gives neighbours seconds, as one may be
// waking up. Running ones answer within a millisecond, and each start waits this long.
const neighbourWait = 60 * time.Millisecond

// Duplicate is an address that another machine on the link has.
type Duplicate struct {
	Addr netip.Addr
	HW   net.HardwareAddr
	// Gateway reports whether the answer came from a router of the default route,
	// which most likely answers for others (proxy ARP).
	Gateway bool
}

func (c Duplicate) String() string { return fmt.Sprintf("%s (%s)", c.Addr, c.HW) }

// Duplicates asks the neighbours of a device which of the addresses are in use, before
// they are added to it. It uses ARP (RFC 5227) and neighbour solicitations (RFC 4862,
// 5.4), neither of which changes a neighbour's cache. Devices that are down or not
// Ethernet have no neighbours to ask.
func Duplicates(ctx context.Context, dev string, addrs []netip.Addr) ([]Duplicate, error) {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", dev, err)
	}
	l := link.Attrs()
	if !hasNeighbours(l) || l.Flags&net.FlagUp == 0 || l.RawFlags&unix.IFF_RUNNING == 0 || len(addrs) == 0 {
		return nil, nil
	}
	found, err := askNeighbours(ctx, l, addrs)
	if err != nil {
		return nil, fmt.Errorf("ask the neighbours of %s for addresses: %w", dev, err)
	}
	return found, nil
}

func askNeighbours(ctx context.Context, l *netlink.LinkAttrs, addrs []netip.Addr) ([]Duplicate, error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Index}); err != nil {
		return nil, err
	}
	var found []Duplicate
	end := time.Now().Add(neighbourWait)
	// Ask twice, as one packet may be lost.
	for _, until := range []time.Time{end.Add(-neighbourWait / 2), end} {
		for _, a := range addrs {
			if err := solicit(fd, l, a); err != nil {
				return nil, err
			}
		}
		if err := readAnswers(ctx, fd, l, addrs, until, &found); err != nil {
			return nil, err
		}
		if len(found) == len(addrs) {
			break
		}
	}
	if len(found) > 0 {
		if err := markGateways(l, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// readAnswers reads answers until the given time, or until each address has one.
func readAnswers(ctx context.Context, fd int, l *netlink.LinkAttrs, addrs []netip.Addr, until time.Time, found *[]Duplicate) error {
	for buf := make([]byte, 256); len(*found) < len(addrs); {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, max(1, int(left.Milliseconds())))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		sa, ok := from.(*unix.SockaddrLinklayer)
		if !ok || sa.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		a, hw := parseAnswer(sa.Protocol>>8|sa.Protocol<<8, buf[:n])
		if hw == nil || bytes.Equal(hw, l.HardwareAddr) || !slices.Contains(addrs, a) ||
			slices.ContainsFunc(*found, func(c Duplicate) bool { return c.Addr == a }) {
			continue
		}
		*found = append(*found, Duplicate{Addr: a, HW: slices.Clone(hw)})
	}
	return nil
}

// parseAnswer returns the owner of an address that an ARP packet or a neighbour
// advertisement names.
func parseAnswer(proto uint16, p []byte) (netip.Addr, net.HardwareAddr) {
	switch {
	case proto == unix.ETH_P_ARP && len(p) >= 28 && binary.BigEndian.Uint16(p) == 1 && p[4] == 6 && p[5] == 4:
		// A reply, or a request from the address's owner.
		return netip.AddrFrom4([4]byte(p[14:])), p[8:14]
	case proto == unix.ETH_P_IPV6 && len(p) >= 72 && p[6] == unix.IPPROTO_ICMPV6 && p[40] == 136 && p[64] == 2 && p[65] == 1:
		return netip.AddrFrom16([16]byte(p[48:])), p[66:72]
	}
	return netip.Addr{}, nil
}

// solicit sends a solicitation that contains no address of the sender.
func solicit(fd int, l *netlink.LinkAttrs, a netip.Addr) error {
	if a.Is4() {
		packet := arp(l.HardwareAddr, a)
		clear(packet[14:18])
		return sendTo(fd, l, unix.ETH_P_ARP, packet, [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}
	target := a.As16()
	to := [16]byte{0xff, 2, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
	body := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target[:]...)
	binary.BigEndian.PutUint16(body[2:], checksum([16]byte{}, to, body))
	packet := append([]byte{0x60, 0, 0, 0, 0, byte(len(body)), unix.IPPROTO_ICMPV6, 255}, make([]byte, 16)...)
	packet = append(append(packet, to[:]...), body...)
	return sendTo(fd, l, unix.ETH_P_IPV6, packet, [6]byte{0x33, 0x33, to[12], to[13], to[14], to[15]})
}

// markGateways marks the duplicates whose answers came from routers.
func markGateways(l *netlink.LinkAttrs, found []Duplicate) error {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: l.Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return err
	}
	neighbours, err := netlink.NeighList(l.Index, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for i := range found {
		for _, n := range neighbours {
			found[i].Gateway = found[i].Gateway || bytes.Equal(n.HardwareAddr, found[i].HW) &&
				slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw != nil && r.Gw.Equal(n.IP) })
		}
	}
	return nil
}
