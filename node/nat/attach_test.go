package nat

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

func TestAddresses(t *testing.T) {
	v4, v6 := Addresses(666)
	if v4 != netip.MustParsePrefix("100.64.2.154/32") || v6 != netip.MustParsePrefix("fd76:7365:7276:1cad::29a/128") {
		t.Errorf("Addresses(666) = %s, %s", v4, v6)
	}
	v4, v6 = Addresses(49151)
	if v4 != netip.MustParsePrefix("100.64.191.255/32") || v6 != netip.MustParsePrefix("fd76:7365:7276:1cad::bfff/128") {
		t.Errorf("Addresses(49151) = %s, %s", v4, v6)
	}
	for _, xid := range []int{2, 255, 256, 666, 49151} {
		for _, f := range families() {
			if a := f.address(xid); !f.pool.Contains(a) || xidOf(a.AsSlice()) != xid {
				t.Errorf("%d: %s is not of %s, or of %d", xid, a, f.pool, xidOf(a.AsSlice()))
			}
		}
	}
}

// Forwards on localhost depend on this: chains output and input replace one address
// with the other without correcting the checksum of TCP and UDP.
func TestIPv6GatewayHasTheChecksumOfLoopback(t *testing.T) {
	gateway := address6(gatewayXID)
	if got, want := checksum(gateway.AsSlice()), checksum(netip.IPv6Loopback().AsSlice()); got != want {
		t.Errorf("checksum of %s is %#x, of ::1 %#x", gateway, got, want)
	}
}

func TestAttach(t *testing.T) {
	onHost(t, func(t *testing.T) {
		ctx := context.Background()
		a := newMachine(t, "a", 666)
		a.serve(t, "a", ":22")
		must(t, Attach(ctx, a.netns, 666))
		first, err := netlink.LinkByName("vs666")
		must(t, err)
		if _, err := netlink.LinkByName("eth0"); err == nil {
			t.Error("eth0 is on the host")
		}
		a.wantsNothing(t, "before Sync, the guest to the host", "100.64.0.1:22")
		if got := (*machine)(nil).askFor(quiet, "tcp", "100.64.2.154:22"); !strings.HasPrefix(got, "nothing") {
			t.Errorf("before Sync, the host to the guest: %s", got)
		}

		must(t, Attach(ctx, a.netns, 666))
		syncGuests(t, Guest{XID: 666, Name: "a"})
		must(t, Attach(ctx, a.netns, 666))
		second, err := netlink.LinkByName("vs666")
		must(t, err)
		if first.Attrs().Index != second.Attrs().Index {
			t.Error("attached again, it has another veth")
		}
		(*machine)(nil).wants(t, "attached three times", "100.64.2.154:22", "a for 100.64.0.1")
		a.do(t, func() error {
			for family, want := range map[int]string{netlink.FAMILY_V4: "100.64.2.154/32", netlink.FAMILY_V6: "fd76:7365:7276:1cad::29a/128"} {
				addrs, err := netlink.AddrList(nil, family)
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IPNet.String() == want }) {
					t.Errorf("the guest's addresses are %v, want %s", addrs, want)
				}
			}
			return nil
		})

		must(t, Detach(ctx, 666))
		must(t, Detach(ctx, 666))
		if got := devices(t); !slices.Equal(got, []string{"lo"}) {
			t.Errorf("detached, there are %v", got)
		}
		must(t, Attach(ctx, a.netns, 666))
		syncGuests(t, Guest{XID: 666, Name: "a"})
		(*machine)(nil).wants(t, "attached after detaching", "100.64.2.154:22", "a for 100.64.0.1")

		// The next guest with this XID starts before the kernel has cleaned up
		// after the last one.
		next := guest(t, "next", 666)
		syncGuests(t, Guest{XID: 666, Name: "next"})
		(*machine)(nil).wants(t, "a successor", "100.64.2.154:22", "next for 100.64.0.1")
		next.wants(t, "a successor inside", "100.64.2.154:22", "next for 100.64.2.154")
	})
}

func TestAttachByPidfd(t *testing.T) {
	onHost(t, func(t *testing.T) {
		a := newMachine(t, "a", 666)
		a.serve(t, "a", ":22")
		fd, err := unix.PidfdOpen(a.pid, 0)
		must(t, err)
		pidfd := os.NewFile(uintptr(fd), "pidfd")
		defer pidfd.Close()
		must(t, Attach(context.Background(), pidfd, 666))
		syncGuests(t, Guest{XID: 666, Name: "a"})
		(*machine)(nil).wants(t, "attached by pidfd", "100.64.2.154:22", "a for 100.64.0.1")

		// Only the process still holds the namespace.
		must(t, Detach(context.Background(), 666))
		a.end()
		err = Attach(context.Background(), pidfd, 666)
		if err == nil || !strings.Contains(err.Error(), "gone") {
			t.Errorf("attach a dead guest: %v", err)
		}
		if got := devices(t); !slices.Equal(got, []string{"lo"}) {
			t.Errorf("attach of a dead guest left %v", got)
		}
	})
}

func TestAttachFails(t *testing.T) {
	onHost(t, func(t *testing.T) {
		ctx := context.Background()
		a := newMachine(t, "a", 666)
		closed, err := os.Open("/proc/self/ns/net")
		must(t, err)
		must(t, closed.Close())
		mount, err := os.Open("/proc/self/ns/mnt")
		must(t, err)
		file, err := os.Open("/proc/self/exe")
		must(t, err)
		for name, c := range map[string]struct {
			f    *os.File
			xid  int
			want string
		}{
			"a closed file":                    {closed, 666, "neither"},
			"a namespace of another kind":      {mount, 666, "neither"},
			"a file":                           {file, 666, "neither"},
			"a context that no guest can have": {a.netns, 1, "context 1"},
			"a context that is not a number's": {a.netns, 49152, "49152"},
		} {
			if err := Attach(ctx, c.f, c.xid); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q in it", name, err, c.want)
			}
			if got := devices(t); !slices.Equal(got, []string{"lo"}) {
				t.Errorf("%s left %v", name, got)
			}
		}

		// A device of somebody else's with this name is neither used nor removed.
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "vs666"
		must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		if err := Attach(ctx, a.netns, 666); err == nil || !strings.Contains(err.Error(), "not ours") {
			t.Errorf("a device of that name: %v", err)
		}
		must(t, Detach(ctx, 666))
		syncGuests(t)
		if got := devices(t); !slices.Equal(got, []string{"lo", "vs666"}) {
			t.Errorf("with somebody else's vs666 there are %v", got)
		}

		// The guest's side fails after the host's has been made.
		a.do(t, func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetName(lo, "lo0")
		})
		if err := Attach(ctx, a.netns, 667); err == nil || !strings.Contains(err.Error(), "lo in the guest") {
			t.Errorf("a guest without lo: %v", err)
		}
		if got := devices(t); !slices.Equal(got, []string{"lo", "vs666"}) {
			t.Errorf("undone, there are %v", got)
		}
	})
}

func TestGuestThatDies(t *testing.T) {
	onHost(t, func(t *testing.T) {
		a, b := guest(t, "a", 666), guest(t, "b", 667)
		syncGuests(t, Guest{XID: 666, Name: "a"}, Guest{XID: 667, Name: "b"})
		a.end()
		// The test holds its namespace, so the veth stays until Sync removes it.
		syncGuests(t, Guest{XID: 667, Name: "b"})
		if got := devices(t); !slices.Equal(got, []string{"lo", "vs667"}) {
			t.Errorf("after a death there are %v", got)
		}
		(*machine)(nil).wants(t, "the one that lives", "100.64.2.155:22", "b for 100.64.0.1")
		b.end()
	})
}

func TestLock(t *testing.T) {
	onHost(t, func(t *testing.T) {
		unlock, err := lock(context.Background())
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := Detach(ctx, 666); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while another has the lock: %v", err)
		}
		unlock()
		must(t, Detach(context.Background(), 666)) // a caller that gave up does not hold the lock

		// Each of many at once sees what those before it did.
		var wg sync.WaitGroup
		var guests []Guest
		for i := range 20 {
			wg.Go(func() {
				err := Sync(context.Background(), func(context.Context) (Want, error) {
					guests = append(guests, Guest{XID: 100 + i, Name: "x"})
					return Want{Guests: guests}, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, err := Show(context.Background())
		must(t, err)
		if len(got) != 20 {
			t.Errorf("20 at once leave %d guests", len(got))
		}
	})
}

func TestProblems(t *testing.T) {
	onHost(t, func(t *testing.T) {
		guest(t, "a", 666)
		syncGuests(t, Guest{XID: 666, Name: "a"})
		problems := func() string {
			t.Helper()
			ps, err := Problems(context.Background())
			must(t, err)
			return strings.Join(ps, "\n")
		}
		if got := problems(); got != "" {
			t.Fatalf("with nothing in the way: %s", got)
		}
		for name, c := range map[string]struct{ rules, want string }{
			"a policy (docker, ufw)": {`add table ip filter
				add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }`, "chain FORWARD of table ip filter"},
			"a last rule (firewalld)": {`add table inet firewalld
				add chain inet firewalld last { type filter hook forward priority 10; }
				add rule inet firewalld last ct state established accept
				add rule inet firewalld last reject with icmpx admin-prohibited`, "chain last of table inet firewalld"},
			"half a cure": {`add table ip filter
				add chain ip filter USER
				add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
				add rule ip filter FORWARD jump USER
				add rule ip filter USER iifname "vs*" accept`, "chain FORWARD"},
			"the cure": {`add table ip filter
				add chain ip filter USER
				add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
				add rule ip filter FORWARD jump USER
				add rule ip filter USER iifname "vs*" counter accept
				add rule ip filter USER oifname "vs*" counter accept`, ""},
			"no drop": {`add table ip filter
				add chain ip filter FORWARD { type filter hook forward priority 0; }
				add rule ip filter FORWARD tcp dport 9 drop`, ""},
			"a drop elsewhere": {`add table ip filter
				add chain ip filter INPUT { type filter hook input priority 0; policy drop; }`, ""},
		} {
			nft(t, c.rules)
			if got := problems(); c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
			for _, table := range []string{"ip filter", "inet firewalld"} {
				nft(t, "add table "+table+"; delete table "+table)
			}
		}

		// A guest is started during the check: its device is missing from the list
		// read first, its routes are in the one read next.
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		must(t, err)
		defer handle.Close()
		if got, err := foreignRoutes(handle, nil); err != nil || len(got) > 0 {
			t.Errorf("routes of a guest that was not there yet: %q, %v", got, err)
		}

		nft(t, "delete table inet vservers")
		if got := problems(); !strings.Contains(got, "table inet vservers is gone") {
			t.Errorf("without our table: %q", got)
		}
		syncGuests(t, Guest{XID: 666, Name: "a"})

		out := outside(t)
		defer out.end()
		up0, err := netlink.LinkByName("up0")
		must(t, err)
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: up0.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("100.64.0.0/10")), Table: 52}))
		if got := problems(); !strings.Contains(got, "100.64.0.0/10 on device up0") || strings.Contains(got, "\n") {
			t.Errorf("with a route into the pool: %q", got)
		}
	})
}

func BenchmarkAttachDetach(b *testing.B) {
	threadOnHost(b)
	m := newMachine(b, "a", 666)
	ctx := context.Background()
	syncGuests(b, Guest{XID: 667, Name: "another"})
	for b.Loop() {
		must(b, Attach(ctx, m.netns, 666))
		must(b, Detach(ctx, 666))
	}
}

func BenchmarkSync(b *testing.B) {
	threadOnHost(b)
	var guests []Guest
	for i := range 20 {
		guests = append(guests, Guest{XID: 100 + i, Name: "x", Forwards: []port.Forward{{Host: uint16(1000 + i), Guest: 22, Proto: port.TCP}}})
	}
	for b.Loop() {
		syncGuests(b, guests...)
	}
}
