package netctx

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// announce tells the neighbours on an Ethernet that the address is here now, by
// gratuitous ARP (RFC 5227) or an unsolicited neighbour advertisement
// (RFC 4861, 7.2.6). Other devices have no neighbours to tell.
func announce(link *netlink.LinkAttrs, addr netip.Addr) error {
	if !hasNeighbours(link) {
		return nil
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if addr.Is4() {
		return sendTo(fd, link, unix.ETH_P_ARP, arp(link.HardwareAddr, addr), [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}
	return sendTo(fd, link, unix.ETH_P_IPV6, advertisement(link.HardwareAddr, addr), [6]byte{0x33, 0x33, 0, 0, 0, 1}) // all nodes
}

func hasNeighbours(link *netlink.LinkAttrs) bool {
	return link.EncapType == "ether" && len(link.HardwareAddr) == 6 && link.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) == 0
}

// sendTo sends a packet through a packet socket.
func sendTo(fd int, link *netlink.LinkAttrs, proto uint16, packet []byte, to [6]byte) error {
	sa := &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: proto>>8 | proto<<8, Halen: 6}
	copy(sa.Addr[:], to[:])
	return unix.Sendto(fd, packet, 0, sa)
}

// arp returns an announcement: a request for the sender's own address.
func arp(hw net.HardwareAddr, addr netip.Addr) []byte {
	four := addr.As4()
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, their lengths, request
	b = append(append(b, hw...), four[:]...)
	return append(append(b, 0, 0, 0, 0, 0, 0), four[:]...)
}

// advertisement returns an IPv6 packet from addr to all nodes on the link.
func advertisement(hw net.HardwareAddr, addr netip.Addr) []byte {
	src, dst := addr.As16(), netip.IPv6LinkLocalAllNodes().As16()
	body := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // neighbour advertisement, override
	body = append(body, src[:]...)
	body = append(append(body, 2, 1), hw...) // option: target link-layer address

	head := []byte{0x60, 0, 0, 0, 0, byte(len(body)), unix.IPPROTO_ICMPV6, 255}
	head = append(append(head, src[:]...), dst[:]...)
	binary.BigEndian.PutUint16(body[2:], checksum(src, dst, body))
	return append(head, body...)
}

// checksum returns that of ICMPv6, which includes the pseudo-header (RFC 4443, 2.3).
func checksum(src, dst [16]byte, body []byte) uint16 {
	sum := uint32(len(body)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{src[:], dst[:], body} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
