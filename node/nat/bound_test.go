package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flowsOf returns the number of connections that conntrack has for this network namespace.
func flowsOf(t testing.TB) int {
	t.Helper()
	text, err := get("/proc/sys/net/netfilter/nf_conntrack_count")
	must(t, err)
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// hold opens at most the given number of connections and closes each without sending
// a packet (TCP_REPAIR), so that conntrack keeps them for days. It returns the number
// of connections made; each has its own source port, counted up from from.
func (m *machine) hold(t testing.TB, to string, from, most int) (held int) {
	t.Helper()
	at := netip.MustParseAddrPort(to)
	m.do(t, func() error {
		for i := range most {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			patience := unix.Timeval{Sec: 2}
			err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience),
				unix.Bind(fd, &unix.SockaddrInet4{Port: from + i}),
				unix.Connect(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}))
			for i := 0; i < 5 && errors.Is(err, unix.EINTR); i++ { // interrupted by a signal of the Go runtime
				if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 2000); n == 1 {
					err = nil
				}
			}
			if err != nil {
				unix.Close(fd)
				if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EINTR) {
					return nil // no answer
				}
				return err
			}
			err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
			unix.Close(fd)
			if err != nil {
				return err
			}
			held++
		}
		return nil
	})
	return held
}

// TestConnectionsOfAGuestAreBounded has a guest try to fill the table of connections,
// which the whole host shares.
func TestConnectionsOfAGuestAreBounded(t *testing.T) {
	onHost(t, func(t *testing.T) {
		syncGuests(t, Guest{XID: 666, Name: "a"})
		syncGuests(t, Guest{XID: 666, Name: "a"}) // the bound is set once conntrack is loaded
		usual, err := connectionsPerGuest()
		must(t, err)
		for _, f := range families() {
			if rule := fmt.Sprintf("add @flows%s { %s saddr ct count over %d } drop", f.name, map[string]string{"4": "ip", "6": "ip6"}[f.name], usual); !strings.Contains(ruleset(t), rule) {
				t.Errorf("no rule %s", rule)
			}
		}
		conntrackShare = 256 // the usual number takes too long
		out := outside(t)
		// The peer, too, closes its connections without a packet.
		out.do(t, func() error {
			var lc net.ListenConfig
			lc.SetMultipathTCP(false) // MPTCP does not support TCP_REPAIR
			l, err := lc.Listen(context.Background(), "tcp", outside4+":9")
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					raw, err := c.(*net.TCPConn).SyscallConn()
					if err == nil {
						raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
					}
					c.Close()
				}
			}()
			return nil
		})
		a, b := guest(t, "a", 666), guest(t, "b", 667)
		guests := []Guest{{XID: 666, Name: "a"}, {XID: 667, Name: "b", Forwards: both(t, "2222", "22")}}
		syncGuests(t, guests...)
		most, err := connectionsPerGuest()
		must(t, err)
		before := flowsOf(t)
		start := time.Now()
		if held := a.hold(t, outside4+":9", 1024, int(most)+100); held != int(most) {
			t.Errorf("the guest holds %d connections, want %d", held, most)
		}
		t.Logf("%d in %v", most, time.Since(start))
		if n := flowsOf(t) - before; n < int(most) || n > int(most)+50 {
			t.Errorf("the host has %d more connections", n)
		}
		a.do(t, func() error { // over IPv6, with datagrams
			c, err := net.ListenUDP("udp6", nil)
			if err != nil {
				return err
			}
			defer c.Close()
			for p := range int(most) + 1000 {
				c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(outside6), Port: 1000 + p})
			}
			return nil
		})
		if n := flowsOf(t) - before; n > 2*int(most)+100 {
			t.Errorf("with IPv6 it has %d more connections, want twice %d", n, most)
		}
		(*machine)(nil).wants(t, "the host reaches others", outside4+":7", "outside for "+host4)
		b.wants(t, "another guest reaches others", outside4+":7", "outside for "+host4)
		out.wants(t, "others reach another guest", host4+":2222", "b for "+outside4)
		if got := a.askFor(quiet, "tcp", outside4+":7"); got[:7] != "nothing" {
			t.Errorf("one more of the guest: %s", got)
		}

		// Without the bound the guest gets more.
		nft(t, "flush chain inet vservers bound")
		if held := a.hold(t, outside4+":9", 50000, 200); held != 200 {
			t.Errorf("without the bound it holds %d more, want 200", held)
		}
		syncGuests(t, guests...)

		// Its connections are removed with the guest, and no others are.
		talk := conversation(t, b, outside4+":7")
		if got := talk(); got != "outside for "+host4 {
			t.Fatal(got)
		}
		start = time.Now()
		a.end()
		syncGuests(t, guests[1])
		t.Logf("cleared in %v", time.Since(start))
		if n := flowsOf(t) - before; n > 50 {
			t.Errorf("when it has gone, %d connections stay", n)
		}
		if got := talk(); got != "outside for "+host4 {
			t.Errorf("a conversation of another guest: %s", got)
		}
	})
}

// TestNeighboursOfTheHostAreBounded has a guest introduce itself to the host under
// many addresses. All devices of the host share one table of neighbours.
func TestNeighboursOfTheHostAreBounded(t *testing.T) {
	onHost(t, func(t *testing.T) {
		a := guest(t, "a", 666)
		guests := []Guest{{XID: 666, Name: "a", Forwards: both(t, "2222", "22")}}
		syncGuests(t, guests...)
		veth, err := netlink.LinkByName("vs666")
		must(t, err)
		a.wants(t, "the host, so that they know each other", "100.64.0.1:2222", "a for 100.64.0.1")
		introduce := func(n byte) {
			for i := range n {
				a.send(t, arpRequest(netip.AddrFrom4([4]byte{100, 64, 9, i}), netip.MustParseAddr("100.64.0.1")))
				for _, prefix := range []string{"fe80::", "fd76:7365:7276:1cad::"} {
					from := netip.MustParseAddr(prefix).As16()
					from[14], from[15] = 9, i
					a.send(t, solicitation(netip.AddrFrom16(from), netip.MustParseAddr("fd76:7365:7276:1cad::1"), veth.Attrs().HardwareAddr))
				}
			}
			// The last one is honest. Once it is answered, those before it have been handled.
			a.wants(t, "the host still knows it", "100.64.0.1:2222", "a for 100.64.0.1")
		}
		known := func() (others int) {
			for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
				list, err := netlink.NeighList(veth.Attrs().Index, family)
				must(t, err)
				for _, n := range list {
					addr, _ := netip.AddrFromSlice(n.IP)
					switch {
					case addr.IsMulticast():
					case addr == address4(666) || addr == address6(666) || addr == linkLocal(666):
					default:
						others++
					}
				}
			}
			return others
		}
		introduce(50)
		if n := known(); n != 0 {
			t.Errorf("the host knows %d others", n)
		}
		// Requests for the guest's own address, and from it, still work.
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			list, err := netlink.NeighList(veth.Attrs().Index, family)
			must(t, err)
			for _, n := range list {
				must(t, netlink.NeighDel(&n))
			}
		}
		(*machine)(nil).wants(t, "the host finds it", "100.64.2.154:22", "a for 100.64.0.1")
		(*machine)(nil).wants(t, "the host finds it by IPv6", "[fd76:7365:7276:1cad::29a]:22", "a for fd76:7365:7276:1cad::1")
		a.do(t, func() error {
			eth0, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			list, err := netlink.NeighList(eth0.Attrs().Index, unix.AF_INET6)
			if err != nil {
				return err
			}
			for _, n := range list {
				if err := netlink.NeighDel(&n); err != nil {
					return err
				}
			}
			return nil
		})
		a.wants(t, "it finds the host by IPv6", "[fd76:7365:7276:1cad::1]:2222", "a for fd76:7365:7276:1cad::1")

		nft(t, "flush chain arp vservers input; flush chain inet vservers source; add rule inet vservers source accept")
		introduce(50)
		if n := known(); n < 140 {
			t.Errorf("without the rules the host knows %d others, want 150", n)
		}
	})
}

func TestLinkLocalAddressIsTheKernels(t *testing.T) {
	onHost(t, func(t *testing.T) {
		guest(t, "a", 666).do(t, func() error {
			eth0, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			addrs, err := netlink.AddrList(eth0, netlink.FAMILY_V6)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				if addr, _ := netip.AddrFromSlice(a.IP); addr == linkLocal(666) {
					return nil
				}
			}
			return fmt.Errorf("eth0 has %v, not %s", addrs, linkLocal(666))
		})
	})
}

var stranger = net.HardwareAddr{2, 0, 0, 0, 0, 9}

// arpRequest returns a request for the owner of an address, sent in the name of from.
func arpRequest(from, whom netip.Addr) []byte {
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, stranger...)
	frame = append(frame, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, stranger...), from.AsSlice()...)
	return append(append(frame, 0, 0, 0, 0, 0, 0), whom.AsSlice()...)
}

// solicitation returns the same for IPv6 (RFC 4861).
func solicitation(from, whom netip.Addr, to net.HardwareAddr) []byte {
	icmp := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, whom.AsSlice()...)
	icmp = append(append(icmp, 1, 1), stranger...)
	pseudo := append(from.AsSlice(), whom.AsSlice()...)
	pseudo = append(pseudo, 0, 0, 0, byte(len(icmp)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(append(pseudo, icmp...)))
	frame := append(append([]byte{}, to...), stranger...)
	frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255)
	return append(append(append(frame, from.AsSlice()...), whom.AsSlice()...), icmp...)
}
