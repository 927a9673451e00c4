package netctx

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// pair creates the two ends of an Ethernet; both disappear with the first.
func pair(t *testing.T, a, b string) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// If a test has moved one, the kernel removes it some time after its namespace ends.
		if err := netlink.LinkDel(veth); err != nil && !errors.Is(err, unix.ENODEV) {
			t.Error(err)
		}
	})
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, p := range texts {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

// hostAdds adds an address as the host itself would.
func hostAdds(t *testing.T, dev, prefix string) {
	t.Helper()
	l, err := netlink.LinkByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		t.Fatal(err)
	}
}

func hostRemoves(t *testing.T, dev, prefix string) {
	t.Helper()
	l, err := netlink.LinkByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrDel(l, a); err != nil {
		t.Fatal(err)
	}
}

// on returns a device's addresses, except those that the kernel made.
func on(t *testing.T, dev string) (list []string) {
	t.Helper()
	l, err := netlink.LinkByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	have, err := addresses(l.Attrs().Index)
	if err != nil {
		t.Fatal(err)
	}
	for a, o := range have {
		if !a.IsLinkLocalUnicast() {
			list = append(list, o.prefix.String())
		}
	}
	slices.Sort(list)
	return list
}

func TestBroadcastIsTheLastAddressOfTheNetwork(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.168.123.123/24": "192.168.123.255",
		"192.0.2.10/30":      "192.0.2.11",
		"10.1.2.3/8":         "10.255.255.255",
	} {
		if got := net.IP(broadcast(netip.MustParsePrefix(prefix))); got.String() != want {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}

func TestAddressesComeAndGo(t *testing.T) {
	ctx := t.Context()
	pair(t, "own0", "own1")
	hostAdds(t, "own0", "192.0.2.1/24")
	want := prefixes("192.0.2.1/24", "192.0.2.10/24", "2001:db8::10/64")

	missing, err := MissingAddresses("own0", want)
	if err != nil || !slices.Equal(missing, want[1:]) {
		t.Errorf("missing %v, %v", missing, err)
	}
	for _, again := range []string{"once", "twice"} {
		added, err := AddAddresses(ctx, "own0", want, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(added, want[1:]) {
			t.Errorf("added %s: %v, want all but the host's own", again, added)
		}
	}
	// If it was killed before it could record them, it still recognizes its own.
	if missing, err = MissingAddresses("own0", want); err != nil || !slices.Equal(missing, want[1:]) {
		t.Errorf("missing once added: %v, %v", missing, err)
	}
	l, err := netlink.LinkByName("own0")
	if err != nil {
		t.Fatal(err)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		t.Error("the device is not up")
	}
	addrs, err := netlink.AddrList(l, unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if a.IP.String() == "2001:db8::10" && a.Flags&unix.IFA_F_TENTATIVE != 0 {
			t.Error("the IPv6 address is tentative: nobody can bind it")
		}
	}
	if got := on(t, "own0"); !slices.Equal(got, []string{"192.0.2.1/24", "192.0.2.10/24", "2001:db8::10/64"}) {
		t.Errorf("on the device: %v", got)
	}
	for range 2 {
		if err := RemoveAddresses(ctx, "own0", want); err != nil {
			t.Fatal(err)
		}
		if got := on(t, "own0"); !slices.Equal(got, []string{"192.0.2.1/24"}) {
			t.Errorf("left on the device: %v, want the host's own alone", got)
		}
	}
	if err := RemoveAddresses(ctx, "gone0", want); err != nil {
		t.Errorf("of a device that is gone: %v", err)
	}
	if _, err := AddAddresses(ctx, "gone0", want, nil); err == nil {
		t.Error("added to a device that is not there")
	}
}

// TestRemovingAPrimaryKeepsItsSecondaries: by default the kernel removes every other
// address of the subnet as well.
func TestRemovingAPrimaryKeepsItsSecondaries(t *testing.T) {
	ctx := t.Context()
	pair(t, "own0", "own1")
	const knob = "/proc/sys/net/ipv4/conf/own0/promote_secondaries"
	if err := os.WriteFile(knob, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	all := prefixes("192.0.2.10/24", "192.0.2.11/24", "192.0.2.12/24")
	if _, err := AddAddresses(ctx, "own0", all, nil); err != nil {
		t.Fatal(err)
	}
	if err := RemoveAddresses(ctx, "own0", all[:1]); err != nil {
		t.Fatal(err)
	}
	if got := on(t, "own0"); !slices.Equal(got, []string{"192.0.2.11/24", "192.0.2.12/24"}) {
		t.Errorf("left: %v", got)
	}
	if b, err := os.ReadFile(knob); err != nil || string(b) != "0\n" {
		t.Errorf("promote_secondaries is %q, %v: it was 0", b, err)
	}
}

func TestLoopback6ComesAndGoes(t *testing.T) {
	ctx := t.Context()
	a := Loopback6(4711)
	asked := lists.Load()
	for range 2 {
		if err := EnsureLoopback6(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	if n := lists.Load() - asked; n > 0 { // each would list a thousand addresses with a thousand guests
		t.Errorf("all addresses were asked for %d times", n)
	}
	if got := on(t, "lo"); !slices.Contains(got, a.String()+"/128") {
		t.Errorf("on lo: %v", got)
	}
	if err := DropLoopback6(ctx, a); err != nil {
		t.Fatal(err)
	}
	if got := on(t, "lo"); slices.Contains(got, a.String()+"/128") {
		t.Errorf("left on lo: %v", got)
	}
	const knob = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
	if err := os.WriteFile(knob, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(knob, []byte("0"), 0)
	if err := EnsureLoopback6(ctx, a); err != nil {
		t.Errorf("without IPv6: %v", err)
	}
}

func TestNewAddressesAreAnnounced(t *testing.T) {
	pair(t, "own0", "own1")
	peer, err := netlink.LinkByName("own1")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(peer); err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: peer.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	tv := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	if _, err := AddAddresses(t.Context(), "own0", prefixes("192.0.2.10/24", "2001:db8::10/64"), nil); err != nil {
		t.Fatal(err)
	}
	own, err := netlink.LinkByName("own0")
	if err != nil {
		t.Fatal(err)
	}
	hw := own.Attrs().HardwareAddr.String()
	var arpSeen, naSeen bool
	for buf := make([]byte, 2048); !arpSeen || !naSeen; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatalf("ARP %v, advertisement %v: %v", arpSeen, naSeen, err)
		}
		f := buf[:n]
		switch {
		case n >= 42 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_ARP:
			sender, target := netip.AddrFrom4([4]byte(f[28:])), netip.AddrFrom4([4]byte(f[38:]))
			arpSeen = arpSeen || sender == target && sender.String() == "192.0.2.10" && net.HardwareAddr(f[22:28]).String() == hw
		case n >= 86 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_IPV6 && f[20] == unix.IPPROTO_ICMPV6 && f[54] == 136:
			src, dst := [16]byte(f[22:]), [16]byte(f[38:])
			if netip.AddrFrom16([16]byte(f[62:])).String() != "2001:db8::10" {
				continue
			}
			naSeen = true
			body := slices.Clone(f[54:86])
			sum := binary.BigEndian.Uint16(body[2:])
			body[2], body[3] = 0, 0
			if checksum(src, dst, body) != sum || f[21] != 255 || net.HardwareAddr(f[80:86]).String() != hw {
				t.Errorf("advertisement % x", f)
			}
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add(ifaddr(loopback, netip.MustParsePrefix("127.0.0.1/8")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, m []byte) {
		a, _, err := parseAddress(m)
		if err == nil && a.prefix.IsValid() && a.prefix.Bits() > a.prefix.Addr().BitLen() {
			t.Errorf("%+v", a)
		}
	})
}

// By default the kernel removes the secondary addresses of a subnet with the primary
// one, and guests are stopped at the same time.
func TestAddressesRemovedAtOnceTakeNoOtherAlong(t *testing.T) {
	pair(t, "vsat0", "vsat1")
	const promote = "/proc/sys/net/ipv4/conf/vsat0/promote_secondaries"
	if err := os.WriteFile(promote, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	ours := prefixes("10.99.0.1/24", "10.99.0.2/24", "10.99.0.3/24", "10.99.0.4/24")
	for round := range 50 {
		if _, err := AddAddresses(t.Context(), "vsat0", ours, nil); err != nil {
			t.Fatal(err)
		}
		hostAdds(t, "vsat0", "10.99.0.200/24") // after ours, so that it is secondary
		var group errgroup.Group
		for _, p := range ours {
			group.Go(func() error { return RemoveAddresses(t.Context(), "vsat0", []netip.Prefix{p}) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if got := on(t, "vsat0"); !slices.Equal(got, []string{"10.99.0.200/24"}) {
			t.Fatalf("round %d: left are %v", round, got)
		}
		if b, err := os.ReadFile(promote); err != nil || string(b) != "0\n" {
			t.Fatalf("round %d: promote_secondaries is %q, %v", round, b, err)
		}
		hostRemoves(t, "vsat0", "10.99.0.200/24")
	}
}
