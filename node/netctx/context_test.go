package netctx

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"

	"github.com/vsfleet/vsfleet/internal/port"
)

// www and mail are two guests with addresses of their own. A guest without ports
// owns all of them.
func www(ports ...string) Spec  { return spec(666, ports, wwwAddr, wwwAddr6) }
func mail(ports ...string) Spec { return spec(125, ports, mailAddr, mailAddr6) }

func spec(xid int, ports []string, addrs ...netip.Prefix) Spec {
	s := Spec{XID: xid, Addresses: addrs, AllPorts: len(ports) == 0}
	for _, text := range ports {
		r, err := port.Parse(text)
		if err != nil {
			panic(err)
		}
		s.Ports = append(s.Ports, r)
	}
	return s
}

// exchange connects a client to a server and returns what each side sees.
func exchange(t *testing.T, server *machine, listener int, client *machine, family int, dial string) (seen, peer, local netip.AddrPort) {
	t.Helper()
	return exchangeFrom(t, server, listener, client, family, "", dial)
}

// exchangeFrom binds the client first, unless from is empty.
func exchangeFrom(t *testing.T, server *machine, listener int, client *machine, family int, from, dial string) (seen, peer, local netip.AddrPort) {
	t.Helper()
	c := client.mustSocket(family, unix.SOCK_STREAM, 0)
	defer client.close(c)
	if from != "" {
		client.must("bind "+from, client.bind(c, from))
	}
	client.must("connect to "+dial, client.connect(c, dial))
	r := server.do(call{Op: "accept", FD: listener})
	server.must("accept", r.err())
	defer server.close(r.N)
	server.must("answer", server.do(call{Op: "send", FD: r.N, Data: []byte("hello")}).err())
	if data, _, err := client.recv(c); err != nil || data != "hello" {
		t.Errorf("client received %q, %v", data, err)
	}
	return r.Addr, client.peername(c), client.sockname(c)
}

func TestWildcardIsTheGuestsAddress(t *testing.T) {
	g, _ := newGuest(t, www("80/tcp"))
	h := host(t)
	l := g.server(unix.AF_INET, "0.0.0.0:80") // below 1024, without CAP_NET_BIND_SERVICE on the host
	if got := g.sockname(l).String(); got != "0.0.0.0:80" {
		t.Errorf("the guest's socket is said to be bound to %s", got)
	}
	seen, _, local := exchange(t, g, l, h, unix.AF_INET, "10.77.0.10:80")
	if seen != local {
		t.Errorf("the guest sees %s, the client is %s", seen, local)
	}
	l6 := g.server6("[::]:80") // beside it
	exchange(t, g, l6, h, unix.AF_INET6, "[fd77::10]:80")
}

func TestTwoGuestsBindTheSamePortOnTheWildcard(t *testing.T) {
	g, _ := newGuest(t, www())
	m, _ := newGuest(t, mail())
	h := host(t)
	for _, on := range []*machine{g, m} {
		on.server(unix.AF_INET, "0.0.0.0:22")
		on.server6("[::]:22")
	}
	for _, dial := range []string{"10.77.0.10:22", "10.77.0.11:22"} {
		h.must(dial, h.connect(h.tcp4(), dial))
	}
	for _, dial := range []string{"[fd77::10]:22", "[fd77::11]:22"} {
		h.must(dial, h.connect(h.tcp6(), dial))
	}
}

func TestConnectionsComeFromTheGuestsAddress(t *testing.T) {
	g, _ := newGuest(t, spec(666, nil, netip.MustParsePrefix("10.77.0.10/24"), netip.MustParsePrefix("10.77.0.11/28"), wwwAddr6))
	h := host(t)
	for _, c := range []struct{ name, listen, want string }{
		{"from the first address", "10.77.0.1:0", "10.77.0.10"},
		{"from the IPv6 address", "[fd77::1]:0", "fd77::10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.t, h.t = t, t
			family := unix.AF_INET
			if netip.MustParseAddrPort(c.listen).Addr().Is6() {
				family = unix.AF_INET6
			}
			l := h.server(family, c.listen)
			defer h.close(l)
			seen, _, _ := exchange(t, h, l, g, family, h.sockname(l).String())
			if seen.Addr().String() != c.want {
				t.Errorf("TCP came from %s, want %s", seen, c.want)
			}
			r := h.receiver(family, c.listen)
			defer h.close(r)
			for _, bound := range []bool{false, true} {
				fd := g.mustSocket(family, unix.SOCK_DGRAM, 0)
				if bound {
					g.must("bind the wildcard", g.bind(fd, map[int]string{unix.AF_INET: "0.0.0.0:0", unix.AF_INET6: "[::]:0"}[family]))
				}
				g.must("send", g.sendto(fd, "x", h.sockname(r).String()))
				if _, from, err := h.recv(r); err != nil || from.Addr().String() != c.want {
					t.Errorf("UDP came from %s, %v, want %s", from, err, c.want)
				}
				g.close(fd)
			}
		})
	}
}

func TestSourceIsInTheSubnetOfTheDestination(t *testing.T) {
	// 10.77.0.11/30 has 10.77.0.8 to .11 in its subnet, and nobody else of them does.
	g, _ := newGuest(t, spec(666, nil, wwwAddr, netip.MustParsePrefix("10.77.0.11/32")))
	l := g.server(unix.AF_INET, "10.77.0.11:80")
	if seen, _, _ := exchange(t, g, l, g, unix.AF_INET, "10.77.0.11:80"); seen.Addr() != wwwAddr.Addr() {
		t.Errorf("came from %s: the first address has it in its subnet too", seen)
	}
	g2, _ := newGuest(t, spec(667, nil, netip.MustParsePrefix("10.77.0.10/32"), mailAddr))
	h := host(t)
	hl := h.server(unix.AF_INET, "10.77.0.1:0")
	defer h.close(hl)
	if seen, _, _ := exchange(t, h, hl, g2, unix.AF_INET, h.sockname(hl).String()); seen.Addr() != mailAddr.Addr() {
		t.Errorf("came from %s, want the address whose subnet has 10.77.0.1", seen)
	}
}

func TestOneSocketForBothFamilies(t *testing.T) {
	h := host(t)
	t.Run("of a guest without IPv6", func(t *testing.T) {
		g, _ := newGuest(t, spec(666, []string{"80/tcp", "8080/tcp", "53/udp"}, wwwAddr))
		l := g.server(unix.AF_INET6, "[::]:80")
		exchange(t, g, l, h, unix.AF_INET, "10.77.0.10:80")
		exchange(t, g, l, g, unix.AF_INET, "127.0.0.1:80")
		exchange(t, g, l, g, unix.AF_INET6, "[::1]:80")
		r := g.receiver(unix.AF_INET6, "[::]:53")
		h.must("send", h.sendto(h.udp4(), "x", "10.77.0.10:53"))
		_, _, err := g.recv(r)
		g.must("receive", err)

		only6 := g.server6("[::]:8080") // Debian's nginx does not start without it
		exchange(t, g, only6, g, unix.AF_INET6, "[::1]:8080")
		if err := g.connect(g.tcp6(), "[fd77::1]:80"); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("connecting by IPv6: %v, want ENETUNREACH so that programs take IPv4", err)
		}
	})
	t.Run("of a UDP server, which has one address: of the family that comes first", func(t *testing.T) {
		four, _ := newGuest(t, www())
		six, _ := newGuest(t, spec(125, nil, mailAddr6, mailAddr))
		r4, r6 := four.receiver(unix.AF_INET6, "[::]:53"), six.receiver(unix.AF_INET6, "[::]:53")
		h.must("send", h.sendto(h.udp4(), "x", "10.77.0.10:53"))
		h.must("send", h.sendto(h.udp6(), "x", "[fd77::11]:53"))
		_, from, err := four.recv(r4)
		four.must("receive", err)
		four.must("answer", four.sendto(r4, "a", from.String()))
		_, from, err = six.recv(r6)
		six.must("receive", err)
		six.must("answer", six.sendto(r6, "a", from.String()))
		// On this error, programs try the other family.
		if err := four.sendto(r4, "x", "[fd77::1]:53"); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("from IPv4 to IPv6: %v", err)
		}
		if err := four.connect(r4, "[fd77::1]:53"); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("connect from IPv4 to IPv6: %v", err)
		}
	})
	t.Run("of UDP clients", func(t *testing.T) {
		g, _ := newGuest(t, www())
		fd := g.receiver(unix.AF_INET6, "[::]:0")
		r4, r6 := h.receiver(unix.AF_INET, "10.77.0.1:0"), h.receiver(unix.AF_INET6, "[fd77::1]:0")
		port4 := netip.AddrPortFrom(netip.MustParseAddr("::ffff:10.77.0.1"), h.sockname(r4).Port())
		g.must("send to IPv4", g.sendto(fd, "x", port4.String()))
		g.must("send to IPv6", g.sendto(fd, "x", h.sockname(r6).String()))
		if _, from, err := h.recv(r4); err != nil || from.Addr() != wwwAddr.Addr() {
			t.Errorf("IPv4 came from %s, %v", from, err)
		}
		if _, from, err := h.recv(r6); err != nil || from.Addr() != wwwAddr6.Addr() {
			t.Errorf("IPv6 came from %s, %v", from, err)
		}
	})
}

func TestTwoGuestsShareAnAddress(t *testing.T) {
	web, _ := newGuest(t, spec(120, []string{"80/tcp", "443/tcp"}, hostAddr))
	smtp, _ := newGuest(t, spec(125, []string{"25/tcp"}, hostAddr))
	h := host(t)
	wl, sl := web.server(unix.AF_INET, "0.0.0.0:80"), smtp.server(unix.AF_INET, "0.0.0.0:25")
	exchange(t, web, wl, h, unix.AF_INET, "10.77.0.1:80")
	exchange(t, smtp, sl, h, unix.AF_INET, "10.77.0.1:25")
	exchange(t, web, wl, smtp, unix.AF_INET, "10.77.0.1:80") // from one to the other

	for _, c := range []struct {
		who  *machine
		addr string
	}{{smtp, "0.0.0.0:443"}, {smtp, "10.77.0.1:443"}, {web, "0.0.0.0:25"}, {web, "0.0.0.0:26"}} {
		if err := c.who.bind(c.who.tcp4(), c.addr); !errors.Is(err, unix.EACCES) {
			t.Errorf("%s binds %s: %v, want EACCES", c.who.name, c.addr, err)
		}
	}
	// Each guest has its own localhost, though they share the address.
	if err := smtp.connect(smtp.tcp4(), "127.0.0.1:80"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("smtp reaches port 80 on its localhost: %v", err)
	}
	smtp.server(unix.AF_INET, "127.0.0.1:80")
	smtp.must("connect", smtp.connect(smtp.tcp4(), "127.0.0.1:80"))

	// A service of the host on every address trusts 127.0.0.0/8.
	trusting := h.server(unix.AF_INET, "0.0.0.0:0")
	defer h.close(trusting)
	fd := smtp.tcp4()
	smtp.must("bind", smtp.bind(fd, "127.0.0.1:0"))
	if err := smtp.connect(fd, netip.AddrPortFrom(hostAddr.Addr(), h.sockname(trusting).Port()).String()); err == nil {
		t.Error("reached a wildcard service of the host from 127.0.0.1")
	}
	seen, _, _ := exchange(t, h, trusting, smtp, unix.AF_INET, netip.AddrPortFrom(hostAddr.Addr(), h.sockname(trusting).Port()).String())
	if seen.Addr() != hostAddr.Addr() {
		t.Errorf("the host's service sees %s", seen)
	}
	udp := h.receiver(unix.AF_INET, "0.0.0.0:0")
	defer h.close(udp)
	fd = smtp.udp4()
	smtp.must("bind", smtp.bind(fd, "127.0.0.1:0"))
	if err := smtp.sendto(fd, "x", netip.AddrPortFrom(hostAddr.Addr(), h.sockname(udp).Port()).String()); err == nil {
		t.Error("sent to a wildcard service of the host from 127.0.0.1")
	}
}

func TestUpdateChangesALiveGuest(t *testing.T) {
	s := spec(120, []string{"80/tcp"}, hostAddr)
	g, cg := newGuest(t, s)
	l := g.server(unix.AF_INET, "0.0.0.0:80")
	if err := g.bind(g.tcp4(), "0.0.0.0:8080"); !errors.Is(err, unix.EACCES) {
		t.Fatalf("before: %v", err)
	}
	s.Ports = []port.Range{{Proto: port.TCP, First: 8000, Last: 8100}}
	if err := Update(cg, s); err != nil {
		t.Fatal(err)
	}
	g.server(unix.AF_INET, "0.0.0.0:8080")
	if err := g.bind(g.tcp4(), "0.0.0.0:80"); !errors.Is(err, unix.EACCES) {
		t.Errorf("port 80 is not its own any more: %v", err)
	}
	// The address changes: sockets bound to the old one send and receive nothing.
	s.Addresses = []netip.Prefix{wwwAddr}
	if err := Update(cg, s); err != nil {
		t.Fatal(err)
	}
	if err := host(t).connect(host(t).tcp4(), "10.77.0.1:80"); err == nil {
		t.Error("the old address still answers")
	}
	g.close(l)
	got, err := shown(cg)
	if err != nil {
		t.Fatal(err)
	}
	if got.XID != 120 || got.AllPorts || len(got.Addresses) != 1 || got.Addresses[0] != wwwAddr || got.Ports[0].String() != "8000-8100/tcp" {
		t.Errorf("shown: %+v", got)
	}
}

func TestTrafficIsCounted(t *testing.T) {
	g, cg := newGuest(t, www())
	h := host(t)
	r4, r6 := h.receiver(unix.AF_INET, "10.77.0.1:0"), h.receiver(unix.AF_INET6, "[fd77::1]:0")
	u4, u6 := g.udp4(), g.udp6()
	for range 3 {
		g.must("send", g.sendto(u4, "12345678", h.sockname(r4).String()))
	}
	g.must("send", g.sendto(u6, "12345678", h.sockname(r6).String()))
	_, from, err := h.recv(r4)
	h.must("receive", err)
	h.must("answer", h.sendto(r4, "1234", from.String()))
	_, _, err = g.recv(u4)
	g.must("receive", err)
	h.must("send to a foreign address, which is not counted", h.sendto(r4, "1234", netip.AddrPortFrom(mailAddr.Addr(), from.Port()).String()))

	var counters Counters
	defer counters.Close()
	got, err := counters.Traffic(cg.Name())
	if err != nil {
		t.Fatal(err)
	}
	if got.V4Out.Packets != 3 || got.V4Out.Bytes != 3*(20+8+8) || got.V6Out.Packets != 1 || got.V6Out.Bytes != 40+8+8 ||
		got.V4In.Packets != 1 || got.V4In.Bytes != 20+8+4 || got.V6In.Packets != 0 {
		t.Errorf("%+v", got)
	}
	if _, err := counters.Traffic(newCgroup(t).Name()); !errors.Is(err, ErrNotAttached) {
		t.Errorf("traffic of a cgroup without a network context: %v", err)
	}
	// The map of the first guest has the counters of the others, too.
	looked := counters.looked
	for range 3 {
		another := newCgroup(t)
		if err := Attach(another, www("80/tcp")); err != nil {
			t.Fatal(err)
		}
		if got, err := counters.Traffic(another.Name()); err != nil || got != (api.Traffic{}) {
			t.Errorf("of a new guest: %+v, %v", got, err)
		}
	}
	if counters.looked != looked {
		t.Errorf("the map was looked for %d times more", counters.looked-looked)
	}
}

func TestCgroupsInsideTheGuestAreTheGuests(t *testing.T) {
	cg := newCgroup(t)
	if err := Attach(cg, www("80/tcp")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cg.Name(), "system.slice")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	below, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		below.Close()
		waitFor(t, "the inner cgroup to be empty", func() bool { return unix.Rmdir(dir) == nil })
	})
	inner, outer := guestProcess(t, below, 666), guestProcess(t, cg, 666)
	if err := inner.bind(inner.tcp4(), "0.0.0.0:81"); !errors.Is(err, unix.EACCES) {
		t.Errorf("port 81 in the inner cgroup: %v", err)
	}
	l := inner.server(unix.AF_INET, "0.0.0.0:80")
	exchange(t, inner, l, outer, unix.AF_INET, "127.0.0.1:80")
	r := outer.receiver(unix.AF_INET, "127.0.0.1:53")
	inner.must("send", inner.sendto(inner.udp4(), "x", "127.0.0.1:53"))
	_, _, err = outer.recv(r)
	outer.must("receive", err)
}

func TestLargeOptionsPass(t *testing.T) {
	g, _ := newGuest(t, www())
	// struct group_filter with sources up to more than a page: what the kernel
	// makes of it is its own matter, but it must see it.
	if err := g.setsockopt(g.udp4(), unix.IPPROTO_IP, unix.MCAST_MSFILTER, bytes.Repeat([]byte{0}, 8192)); errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EPERM) {
		t.Errorf("an option of two pages: %v", err)
	}
	if err := g.setsockopt(g.tcp4(), unix.IPPROTO_TCP, unix.TCP_ULP, []byte("smc")); !errors.Is(err, unix.EPERM) {
		t.Errorf("TCP_ULP smc: %v", err)
	}
	if err := g.setsockopt(g.tcp4(), unix.IPPROTO_TCP, unix.TCP_ULP, []byte("tls")); errors.Is(err, unix.EPERM) {
		t.Errorf("TCP_ULP tls: %v", err)
	}
}

func TestAttachWantsAFreshCgroup(t *testing.T) {
	cg := newCgroup(t)
	if err := Attach(cg, www()); err != nil {
		t.Fatal(err)
	}
	if err := Attach(cg, www()); err == nil {
		t.Error("attached twice")
	}
	if err := Update(newCgroup(t), www()); !errors.Is(err, ErrNotAttached) {
		t.Errorf("update of a cgroup without a network context: %v", err)
	}
}

// TestWithoutSettingsNothingIsAllowed tests the moment between attach and settings.
func TestWithoutSettingsNothingIsAllowed(t *testing.T) {
	cg := newCgroup(t)
	dir, err := ensureNetctx()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hooks {
		if err := attachPinned(cg, dir, h); err != nil {
			t.Fatal(err)
		}
	}
	g := guestProcess(t, cg, 666)
	for _, addr := range []string{"0.0.0.0:0", "127.0.0.1:0", "10.77.0.10:0", "0.0.0.0:8080"} {
		if err := g.bind(g.tcp4(), addr); err == nil {
			t.Errorf("bound %s", addr)
		}
	}
	l := host(t).server(unix.AF_INET, "10.77.0.1:0")
	defer host(t).close(l)
	if err := g.connect(g.tcp4(), host(t).sockname(l).String()); err == nil {
		t.Error("connected")
	}
}
