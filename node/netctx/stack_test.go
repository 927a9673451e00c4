package netctx

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What comes of one stack for all: ports that the kernel hands out, localhost
// that is an address of lo, sources that stay with a socket.

func TestOnlyTLSIsPutOntoTCP(t *testing.T) {
	g, _ := newGuest(t, www("80/tcp"))
	for _, row := range []struct {
		name    string
		value   []byte
		allowed bool // by us; the kernel may have no such protocol
	}{
		{"tls", []byte("tls"), true},
		{"tls and its end", []byte("tls\x00"), true},
		{"another", []byte("smc"), false},
		{"one that begins with tls", []byte("tlsfoo"), false},
		{"more than the kernel shows, to be changed meanwhile", append([]byte("tls"), make([]byte, 8192)...), false},
	} {
		fd := g.tcp4()
		err := g.setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_ULP, row.value)
		if refused := errors.Is(err, unix.EPERM); refused == row.allowed {
			t.Errorf("%s: %v", row.name, err)
		}
		g.close(fd)
	}
}

// portRange makes the kernel hand out few ports while a test lasts.
func portRange(t *testing.T, first, last int) {
	t.Helper()
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d %d", first, last), 0); err != nil {
		t.Fatal(err)
	}
}

// Two UDP sockets with SO_REUSEADDR share a port, and the later one receives.
func TestNobodyIsGivenThePortOfARunningService(t *testing.T) {
	portRange(t, 51820, 51821)
	h := host(t)
	thief, _ := newGuest(t, spec(121, []string{"80/tcp"}, hostAddr))
	owner, _ := newGuest(t, spec(122, []string{"51820/udp", "51822/udp"}, hostAddr))
	reuse := func(m *machine, fd int) {
		m.must("set REUSEADDR", m.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
	}
	service := owner.udp4()
	reuse(owner, service)
	owner.must("bind", owner.bind(service, "0.0.0.0:51820"))
	wildcard := h.udp4()
	reuse(h, wildcard)
	h.must("bind", h.bind(wildcard, "0.0.0.0:51821"))

	for _, how := range []struct {
		name string
		take func(fd int) error
	}{
		{"bind", func(fd int) error { return thief.bind(fd, "0.0.0.0:0") }},
		{"bind to the address", func(fd int) error { return thief.bind(fd, netip.AddrPortFrom(hostAddr.Addr(), 0).String()) }},
		{"connect", func(fd int) error { return thief.connect(fd, "10.77.0.1:9") }},
		{"send", func(fd int) error { return thief.sendto(fd, "x", "10.77.0.1:9") }},
	} {
		fd := thief.udp4()
		reuse(thief, fd)
		if err := how.take(fd); err == nil {
			t.Errorf("%s: it was given %s", how.name, thief.sockname(fd))
		}
		thief.close(fd)
	}
	fd := thief.udp4()
	if err := thief.setsockopt(fd, unix.IPPROTO_IP, 51, word(51820|51820<<16)); !errors.Is(err, unix.EPERM) {
		t.Errorf("IP_LOCAL_PORT_RANGE: %v", err)
	}

	// A guest that owns a port may share it with itself.
	for range 2 {
		fd := owner.udp4()
		reuse(owner, fd)
		owner.must("bind", owner.bind(fd, "0.0.0.0:51822"))
	}
	c := h.receiver(unix.AF_INET, "10.77.0.1:40000") // none is left to be handed out
	h.must("send", h.sendto(c, "hello", netip.AddrPortFrom(hostAddr.Addr(), 51820).String()))
	if got, _, err := owner.recv(service); got != "hello" {
		t.Errorf("the owner received %q, %v", got, err)
	}
}

// As getaddrinfo(3) tries destinations on one socket.
func TestSourceIsChosenAnewAfterADisconnect(t *testing.T) {
	g, _ := newGuest(t, www())
	for _, row := range []struct {
		fd   int
		to   []string // one after the other
		from string   // at last
	}{
		{g.udp4(), []string{"127.0.0.1:53", "10.77.0.1:53"}, wwwAddr.Addr().String()},
		{g.udp4(), []string{"10.77.0.1:53", "127.0.0.1:53"}, "127.0.0.1"},
		{g.udp6(), []string{"[::1]:53", "[fd77::1]:53"}, wwwAddr6.Addr().String()},
		{g.udp6(), []string{"[fd77::1]:53", "[::1]:53"}, "::1"},
	} {
		for i, to := range row.to {
			if i > 0 {
				g.must("disconnect", g.do(call{Op: "connect", FD: row.fd}).err())
			}
			g.must("connect to "+to, g.connect(row.fd, to))
		}
		if got := g.sockname(row.fd).Addr().String(); got != row.from {
			t.Errorf("%v: from %s, want %s", row.to, got, row.from)
		}
	}
	// What the program itself was bound to stays.
	fd := g.udp4()
	g.must("bind", g.bind(fd, "127.0.0.1:0"))
	g.must("connect", g.connect(fd, "127.0.0.1:53"))
	g.must("disconnect", g.do(call{Op: "connect", FD: fd}).err())
	g.must("connect", g.connect(fd, "127.0.0.1:54"))
	if got := g.sockname(fd).Addr().String(); got != "127.0.0.1" {
		t.Errorf("bound to 127.0.0.1, it is now %s", got)
	}
}

func TestOwnEphemeralListenerIsFoundOnLocalhost(t *testing.T) {
	h := host(t)
	g, _ := newGuest(t, spec(123, []string{"80/tcp"}, hostAddr))
	other, _ := newGuest(t, spec(124, []string{"81/tcp"}, hostAddr))
	l := g.server(unix.AF_INET, "0.0.0.0:0")
	at := fmt.Sprintf("127.0.0.1:%d", g.sockname(l).Port())
	g.must("connect to "+at, g.connect(g.tcp4(), at))
	if err := other.connect(other.tcp4(), at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("another guest's localhost leads there: %v", err)
	}
	at = fmt.Sprintf("127.0.0.1:%d", h.sockname(h.server(unix.AF_INET, netip.AddrPortFrom(hostAddr.Addr(), 0).String())).Port())
	if err := g.connect(g.tcp4(), at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the guest's localhost leads to the host's: %v", err)
	}
}

// Linux takes packets for an address of lo on any device: for IPv6 always, for
// 127.0.0.0/8 with route_localnet, which docker and kube-proxy turn on.
func TestLocalhostIsOutOfReachFromTheWire(t *testing.T) {
	g, _ := newGuest(t, www("80/tcp"))
	l4, l6 := g.server(unix.AF_INET, "127.0.0.1:9999"), g.server6("[::1]:9999")
	u4, u6 := g.receiver(unix.AF_INET, "127.0.0.1:9998"), g.receiver(unix.AF_INET6, "[::1]:9998")
	local4, local6 := Loopback(666), Loopback6(666)
	fromNeighbour(t, func() error {
		for _, a := range []netip.Addr{local4, local6} {
			if c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 9999).String(), 500*time.Millisecond); err == nil {
				c.Close()
				t.Errorf("connected to %s", a)
			}
			c, err := net.Dial("udp", netip.AddrPortFrom(a, 9998).String())
			if err != nil {
				return err
			}
			fmt.Fprint(c, "hello")
			c.Close()
		}
		return nil
	})
	for _, fd := range []int{u4, u6} {
		if got, from, err := g.recv(fd); err == nil {
			t.Errorf("received %q from %s", got, from)
		}
	}
	// The same services answer the guest itself.
	g.must("connect", g.connect(g.tcp4(), "127.0.0.1:9999"))
	g.must("connect", g.connect(g.tcp6(), "[::1]:9999"))
	g.close(l4)
	g.close(l6)
}

// fromNeighbour does something on another machine, which has the sandbox for
// its router to the guests' localhost.
func fromNeighbour(t *testing.T, do func() error) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "peer1"}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(veth))
	t.Cleanup(func() { _ = netlink.LinkDel(veth) }) // it goes with the neighbour
	configure := func(name, v4, v6 string) error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, text := range []string{v4, v6} {
			a, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			if strings.Contains(text, ":") {
				a.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, a); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/route_localnet", []byte("1"), 0)
	}
	must(configure("eth1", "10.78.0.1/24", "fd78::1/64"))
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread and its namespace end with the goroutine
		result <- func() error {
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer home.Close()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			here, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer here.Close()
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			peer, err := netlink.LinkByName("peer1")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetNsFd(peer, int(here.Fd())); err != nil {
				return err
			}
			if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			// /proc/sys/net is that of the thread which opens it.
			if err := configure("peer1", "10.78.0.2/24", "fd78::2/64"); err != nil {
				return err
			}
			peer, err = netlink.LinkByName("peer1")
			if err != nil {
				return err
			}
			for to, gw := range map[string]string{"127.2.154.0/24": "10.78.0.1", "fd76:7365:7276:6572::/64": "fd78::1"} {
				_, dst, err := net.ParseCIDR(to)
				if err != nil {
					return err
				}
				route := &netlink.Route{LinkIndex: peer.Attrs().Index, Dst: dst, Gw: net.ParseIP(gw)}
				if err := netlink.RouteAdd(route); err != nil {
					return fmt.Errorf("route %s: %w", to, err)
				}
			}
			return do()
		}()
	}()
	must(<-result)
}
