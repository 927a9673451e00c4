package netctx

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// answers reports whether an echo request is answered. It is sent as ping does, by a
// socket that is neither bound (unless from is given) nor connected.
func answers(g *machine, from, to string) bool {
	g.t.Helper()
	addr := netip.MustParseAddr(to)
	family, proto, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(8), byte(0)
	if addr.Is6() {
		family, proto, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, 129
	}
	fd := g.mustSocket(family, unix.SOCK_DGRAM, proto)
	defer g.close(fd)
	if from != "" {
		g.must("bind "+from, g.bind(fd, netip.AddrPortFrom(netip.MustParseAddr(from), 0).String()))
	}
	echo := string([]byte{request, 0, 0, 0, 0, 0, 0, 1, 'x'})
	if err := g.sendto(fd, echo, netip.AddrPortFrom(addr, 0).String()); err != nil {
		return false
	}
	data, _, err := g.recv(fd)
	return err == nil && len(data) == 9 && data[0] == reply && data[8] == 'x'
}

func hasPingTable(t *testing.T) bool {
	t.Helper()
	p, err := openPings()
	if err != nil {
		t.Fatal(err)
	}
	return p.there
}

// TestPingsComeFromTheGuestsAddress: the source that the route chooses is the
// host's first address, and a guest's programs do not bind it.
func TestPingsComeFromTheGuestsAddress(t *testing.T) {
	ctx := t.Context()
	n := onTheWire(t)
	s := many()
	g, _ := newGuest(t, s)
	for _, to := range []string{"10.78.0.99", "fd78::99"} { // and learns the neighbour's hardware address
		waitFor(t, to+" to answer the host", func() bool { return answers(host(t), "", to) })
	}
	outside := []string{"10.78.0.99", "fd78::99", "10.77.0.1", "fd77::1"}
	t.Run("without the table, which shows that it is needed", func(t *testing.T) {
		g.t = t
		for _, to := range []string{"10.78.0.99", "fd78::99"} {
			if answers(g, "", to) {
				t.Errorf("%s answers", to)
			}
		}
	})
	for range 2 { // it may exist already
		if err := PingFrom(ctx, s, places(t)); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range append(outside, "10.77.0.10", "10.77.0.11", "fd77::11", "127.0.0.1", "127.0.0.53", "::1") {
		if !answers(g, "", to) {
			t.Errorf("%s does not answer", to)
		}
	}
	for _, row := range [][2]string{{"10.77.0.11", "10.78.0.99"}, {"fd77::11", "fd78::99"}, {"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}} {
		if !answers(g, row[0], row[1]) {
			t.Errorf("from %s: %s does not answer", row[0], row[1])
		}
	}
	h := host(t)
	t.Run("the host and another guest keep their sources", func(t *testing.T) {
		other, _ := newGuest(t, spec(125, []string{"25/tcp"}, hostAddr))
		h.t, n.t = t, t
		for _, m := range []*machine{h, other} {
			if m == other {
				// The host has other addresses, so it is in the table too.
				if err := PingFrom(ctx, spec(125, []string{"25/tcp"}, hostAddr), places(t)); err != nil {
					t.Fatal(err)
				}
			}
			if !answers(m, "", "10.78.0.99") {
				t.Errorf("10.78.0.99 does not answer %s", m.name)
			}
		}
		if err := DropPing(ctx, 125); err != nil {
			t.Fatal(err)
		}
		g.t = t
		if !answers(g, "", "10.78.0.99") {
			t.Error("the guest's part went with the other's")
		}
	})
	if err := DropPing(ctx, s.XID); err != nil {
		t.Fatal(err)
	}
	if hasPingTable(t) {
		t.Error("the table stays when no guest needs it")
	}
	if err := DropPing(ctx, s.XID); err != nil {
		t.Errorf("again: %v", err)
	}
}

// A table that somebody flushed is made again; if the host has only one address, it needs none.
func TestPingTableIsForWhoNeedsIt(t *testing.T) {
	ctx := t.Context()
	for name, row := range map[string]struct {
		host, guest []string
		want        bool
	}{
		"the only address":               {[]string{"192.0.2.1/24"}, []string{"192.0.2.1/24"}, false},
		"the only ones of each family":   {[]string{"192.0.2.1/24", "2001:db8::1/64"}, []string{"192.0.2.1/24", "2001:db8::1/64"}, false},
		"one of two":                     {[]string{"192.0.2.1/24", "192.0.2.2/24"}, []string{"192.0.2.2/24"}, true},
		"one that has no other family":   {[]string{"192.0.2.1/24", "2001:db8::1/64"}, []string{"192.0.2.1/24"}, false},
		"localhosts are no other source": {[]string{"127.0.0.1/8", "::1/128", "fe80::1/64", Loopback6(7).String() + "/128", "192.0.2.1/24"}, []string{"192.0.2.1/24"}, false},
	} {
		on := map[netip.Addr]HostAddress{}
		for _, p := range prefixes(row.host...) {
			on[p.Addr()] = HostAddress{}
		}
		if got := (Spec{Addresses: prefixes(row.guest...)}).mayBeMistaken(on); got != row.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if err := PingFrom(ctx, www(), places(t)); err != nil {
		t.Fatal(err)
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := PingFrom(ctx, www(), places(t)); err != nil {
		t.Fatal(err)
	}
	g, _ := newGuest(t, www())
	if !answers(g, "", "10.77.0.1") {
		t.Error("no answer after the packet filter was flushed")
	}
	if err := DropPing(ctx, 666); err != nil {
		t.Fatal(err)
	}
}

// Whether a guest's pings need the table depends on the host's own addresses. Those of
// other guests come and go, and are not drift of this guest.
func TestPingsGoByTheHostsOwnAddresses(t *testing.T) {
	shared := Spec{Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.11/24")}}
	on := map[netip.Addr]HostAddress{netip.MustParseAddr("203.0.113.11"): {}, netip.MustParseAddr("127.0.0.1"): {}}
	for _, row := range []struct {
		name, address string
		place         HostAddress
		want          bool
	}{
		{"its own alone", "203.0.113.11", HostAddress{}, false},
		{"the host's end of a private network", "100.64.0.1", HostAddress{}, false},
		{"an own address of another guest", "203.0.113.77", HostAddress{Ours: true}, false},
		{"one of the other family", "2001:db8::1", HostAddress{}, false},
		{"another of the host", "198.51.100.1", HostAddress{}, true},
	} {
		have := maps.Clone(on)
		have[netip.MustParseAddr(row.address)] = row.place
		if got := shared.mayBeMistaken(have); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

func places(t *testing.T) map[netip.Addr]HostAddress {
	t.Helper()
	on, err := HostAddresses()
	if err != nil {
		t.Fatal(err)
	}
	return on
}
