package nat

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/netctx"
)

// datagram returns a UDP packet as a guest can forge it: from any source to any
// destination, sent to the host's end of the veth.
func datagram(src, dst netip.AddrPort, to net.HardwareAddr, payload string) []byte {
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp[0:], src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	pseudo := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_UDP, udp[4], udp[5])
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))

	frame := append([]byte{}, to...)
	frame = append(frame, 2, 0, 0, 0, 0, 9)
	if src.Addr().Is4() {
		ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(udp)))
		ip = append(append(ip, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
		binary.BigEndian.PutUint16(ip[10:], checksum(ip))
		return append(append(append(frame, 0x08, 0x00), ip...), udp...)
	}
	ip := []byte{0x60, 0, 0, 0, 0, byte(len(udp)), unix.IPPROTO_UDP, 64}
	ip = append(append(ip, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	return append(append(append(frame, 0x86, 0xdd), ip...), udp...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for len(b) > 1 {
		sum += uint32(b[0])<<8 | uint32(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// tagged returns the frame with a VLAN tag. VLAN 0 is no VLAN: such a tag only
// carries a priority.
func tagged(frame []byte, vlan uint16) []byte {
	return slices.Concat(frame[:12], []byte{0x81, 0x00}, binary.BigEndian.AppendUint16(nil, vlan), frame[12:])
}

// send puts a frame on the machine's eth0.
func (m *machine) send(t testing.TB, frame []byte) {
	t.Helper()
	m.do(t, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
	})
}

// hear returns the payloads that arrive at a UDP port of the machine before "end".
func (m *machine) hear(t testing.TB, addr string, talk func(port uint16)) []string {
	t.Helper()
	var p net.PacketConn
	m.do(t, func() (err error) { p, err = net.ListenPacket("udp", addr); return err })
	defer p.Close()
	talk(netip.MustParseAddrPort(p.LocalAddr().String()).Port())
	var heard []string
	p.SetDeadline(time.Now().Add(3 * time.Second))
	b := make([]byte, 100)
	for {
		n, _, err := p.ReadFrom(b)
		if err != nil {
			t.Fatalf("hear %s: %v, so far %q", addr, err, heard)
		}
		if string(b[:n]) == "end" {
			return heard
		}
		heard = append(heard, string(b[:n]))
	}
}

// TestForgedSources sends what a guest with raw and packet sockets can forge; the
// hardware address of each frame is forged, too.
func TestForgedSources(t *testing.T) {
	onHost(t, func(t *testing.T) {
		out := outside(t)
		a, _ := guest(t, "a", 666), guest(t, "b", 667)
		syncGuests(t, Guest{XID: 666, Name: "a"}, Guest{XID: 667, Name: "b"})
		gateway, err := netlink.LinkByName("vs666")
		must(t, err)
		frame := func(src, dst string, port uint16, what string) []byte {
			from, to := netip.AddrPortFrom(netip.MustParseAddr(src), 5), netip.AddrPortFrom(netip.MustParseAddr(dst), port)
			return datagram(from, to, gateway.Attrs().HardwareAddr, what)
		}
		forgeries := map[bool][]string{
			true:  {"100.64.2.155", "100.64.0.1", "100.64.9.9", host4, outside4, "192.0.2.1", "127.0.0.1", "0.0.0.0", "255.255.255.255"},
			false: {"fd76:7365:7276:1cad::29b", "fd76:7365:7276:1cad::1", "fd76:7365:7276:1cad::999", host6, outside6, "2001:db8:1::1", "::1", "::", "fe80::29a"},
		}
		for _, way := range []struct {
			where       *machine
			dst, honest string
		}{
			{out, outside4, "100.64.2.154"},
			{out, outside6, "fd76:7365:7276:1cad::29a"},
			{nil, host4, "100.64.2.154"},
			{nil, host6, "fd76:7365:7276:1cad::29a"},
		} {
			heard := way.where.hear(t, net.JoinHostPort(way.dst, "0"), func(port uint16) {
				for _, src := range forgeries[strings.Contains(way.dst, ".")] {
					a.send(t, frame(src, way.dst, port, "from "+src))
					a.send(t, tagged(frame(src, way.dst, port, "tagged, from "+src), 0))
				}
				a.send(t, tagged(frame(way.honest, way.dst, port, "in another VLAN"), 7))
				a.send(t, tagged(frame(way.honest, way.dst, port, "tagged and honest"), 0))
				a.send(t, frame(way.honest, way.dst, port, "end"))
			})
			// The kernel ignores this tag, so it is the guard that drops the others.
			if !slices.Equal(heard, []string{"tagged and honest"}) {
				t.Errorf("%s hears forged packets: %q", way.dst, heard)
			}
		}
	})
}

// A guest is root of its network namespace and can send anything to the host,
// where another program may have turned route_localnet on.
func TestHostLoopbackIsOutOfReach(t *testing.T) {
	onHost(t, func(t *testing.T) {
		a := guest(t, "a", 666)
		syncGuests(t, Guest{XID: 666, Name: "a"})
		must(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0))
		gateway, err := netlink.LinkByName("vs666")
		must(t, err)
		say := func(dst string, port uint16, what string) {
			src := netip.MustParseAddrPort("100.64.2.154:5")
			a.send(t, datagram(src, netip.AddrPortFrom(netip.MustParseAddr(dst), port), gateway.Attrs().HardwareAddr, what))
		}
		heard := (*machine)(nil).hear(t, "0.0.0.0:0", func(port uint16) {
			for _, dst := range []string{"127.0.0.1", "127.2.154.1", "127.255.255.255"} {
				say(dst, port, "to "+dst)
			}
			say("100.64.0.1", port, "end")
		})
		if len(heard) != 0 {
			t.Errorf("the host's loopback hears %q", heard)
		}
		// The same without the guard, or this test would prove nothing.
		nft(t, "flush chain inet vservers source; add rule inet vservers source accept")
		heard = (*machine)(nil).hear(t, "0.0.0.0:0", func(port uint16) {
			say("127.0.0.1", port, "to 127.0.0.1")
			say("100.64.0.1", port, "end")
		})
		if len(heard) != 1 {
			t.Errorf("with route_localnet and without the guard, the host's loopback hears %q", heard)
		}
	})
}

// The localhost of a guest in the host's network is an address on the host's lo.
func TestLocalhostsOfOtherGuestsAreOutOfReach(t *testing.T) {
	onHost(t, func(t *testing.T) {
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		for _, xid := range []int{2, 667, 49151} {
			must(t, netlink.AddrAdd(lo, address(netip.PrefixFrom(netctx.Loopback6(xid), 128))))
			(*machine)(nil).serve(t, "localhost", netip.AddrPortFrom(netctx.Loopback6(xid), 5432).String())
		}
		a := guest(t, "a", 666)
		syncGuests(t, Guest{XID: 666, Name: "a"})
		(*machine)(nil).serve(t, "host", "[fd76:7365:7276:1cad::1]:5432")
		for _, xid := range []int{2, 667, 49151} {
			a.wantsNothing(t, "a guest to another's localhost", netip.AddrPortFrom(netctx.Loopback6(xid), 5432).String())
		}
		a.wants(t, "while it reaches the host", "[fd76:7365:7276:1cad::1]:5432", "host for fd76:7365:7276:1cad::29a")
		// The same without the guard, or this test would prove nothing.
		nft(t, "flush chain inet vservers source; add rule inet vservers source accept")
		a.wants(t, "without the guard", netip.AddrPortFrom(netctx.Loopback6(667), 5432).String(), "localhost for fd76:7365:7276:1cad::29a")
	})
}

func TestNoWayInButForwards(t *testing.T) {
	onHost(t, func(t *testing.T) {
		out := outside(t)
		a := guest(t, "a", 666)
		syncGuests(t, Guest{XID: 666, Name: "a"})
		out.do(t, func() error {
			for dst, gw := range map[string]string{"100.64.0.0/16": host4, "fd76:7365:7276:1cad::/64": host6} {
				if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(dst)), Gw: net.ParseIP(gw)}); err != nil {
					return err
				}
			}
			return nil
		})
		out.wantsNothing(t, "a neighbour that routes to the guest's address", "100.64.2.154:22")
		out.wantsNothing(t, "a neighbour that routes to the guest's IPv6 address", "[fd76:7365:7276:1cad::29a]:22")
		a.wants(t, "while the guest reaches it", outside4+":7", "outside for "+host4)
	})
}

func TestGuestIsMasterOfItsNetwork(t *testing.T) {
	onHost(t, func(t *testing.T) {
		a := guest(t, "a", 666)
		syncGuests(t, Guest{XID: 666, Name: "a"})
		before := ruleset(t)
		inside := func(command ...string) (string, error) {
			args := append([]string{"-t", strconv.Itoa(a.pid), "-U", "-n"}, command...)
			out, err := exec.CommandContext(context.Background(), "nsenter", args...).CombinedOutput()
			return string(out), err
		}
		if out, err := inside("nft", "add table inet mine; add chain inet mine c { type nat hook output priority -100; }; add rule inet mine c tcp dport 1 redirect to :22"); err != nil {
			t.Fatalf("nft in the guest: %v: %s", err, out)
		}
		if out, err := inside("nft", "list", "ruleset"); err != nil || !strings.Contains(out, "table inet mine") || strings.Contains(out, "vservers") {
			t.Errorf("the guest's ruleset: %v: %s", err, out)
		}
		if got := a.ask("tcp", "100.64.2.154:1"); got != "a for 100.64.2.154" {
			t.Errorf("a rule of the guest's: %s", got)
		}
		if after := ruleset(t); after != before {
			t.Errorf("the guest's rule changed the host's:\n%s", after)
		}
	})
}
