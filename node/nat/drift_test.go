package nat

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

// TestWhatSomebodyChangedIsPutBack removes each thing that Attach and Sync made, as an
// administrator or another program might, while guests run.
func TestWhatSomebodyChangedIsPutBack(t *testing.T) {
	onHost(t, func(t *testing.T) {
		out := outside(t)
		a, b := guest(t, "a", 666), guest(t, "b", 667)
		w := Want{Guests: []Guest{{XID: 666, Name: "a", Forwards: both(t, "2222", "22")}, {XID: 667, Name: "b", Metadata: true}}}
		syncWant(t, w)
		machines := map[int]*machine{666: a, 667: b}
		repair := func() {
			for xid, m := range machines {
				must(t, Attach(context.Background(), m.netns, xid))
			}
			syncWant(t, w)
		}
		found := func(xid int) []string {
			gone, err := Drift(context.Background(), w.Guests)
			must(t, err)
			return gone[xid]
		}
		before := ruleset(t)
		veth := func() netlink.Link {
			l, err := netlink.LinkByName("vs666")
			must(t, err)
			return l
		}
		pause := func(path string) func() {
			return func() { must(t, os.WriteFile(path, []byte("0"), 0)) }
		}
		for _, c := range []struct {
			name   string
			change func()
			told   string
			all    bool // missing for all guests
		}{
			{"all packet filters flushed", func() { nft(t, "flush ruleset") }, "table inet vservers", true},
			{"the table deleted", func() { nft(t, "delete table inet vservers") }, "table inet vservers", true},
			{"the table of ARP deleted", func() { nft(t, "delete table arp vservers") }, "table inet vservers", true},
			{"a chain flushed", func() { nft(t, "flush chain inet vservers source") }, "table inet vservers", true},
			{"a rule more", func() { nft(t, "insert rule inet vservers source accept") }, "table inet vservers", true},
			{"a chain more", func() { nft(t, "add chain inet vservers mine") }, "table inet vservers", true},
			{"a set flushed", func() { nft(t, "flush set inet vservers guests4") }, "table inet vservers", true},
			{"a forward led elsewhere", func() {
				nft(t, "delete element inet vservers any4 { tcp . 2222 }; add element inet vservers any4 { tcp . 2222 : 100.64.2.155 . 22 }")
			}, "table inet vservers", true},
			{"forwarding switched off", pause(forward4), forward4, true},
			{"forwarding of IPv6 switched off", pause(forward6), forward6, true},
			{"the device deleted", func() { must(t, netlink.LinkDel(veth())) }, "vs666 is gone", false},
			{"the device deleted by the guest", func() {
				a.do(t, func() error {
					eth0, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					return netlink.LinkDel(eth0)
				})
			}, "vs666 is gone", false},
			{"the device set down", func() { must(t, netlink.LinkSetDown(veth())) }, "vs666 is down", false},
			{"its address removed", func() { must(t, netlink.AddrDel(veth(), address(single(families()[0].gateway)))) }, "address 100.64.0.1 is gone", false},
			{"its IPv6 address removed", func() { must(t, netlink.AddrDel(veth(), address(single(families()[1].gateway)))) }, "address fd76:7365:7276:1cad::1 is gone", false},
			{"the route removed", func() {
				must(t, netlink.RouteDel(&netlink.Route{LinkIndex: veth().Attrs().Index, Dst: ipNet(single(address4(666))), Scope: netlink.SCOPE_LINK}))
			}, "route to 100.64.2.154", false},
			{"the route of IPv6 removed", func() {
				must(t, netlink.RouteDel(&netlink.Route{LinkIndex: veth().Attrs().Index, Dst: ipNet(single(address6(666)))}))
			}, "route to fd76:7365:7276:1cad::29a", false},
		} {
			t.Run(c.name, func(t *testing.T) {
				if gone := found(666); gone != nil {
					t.Fatalf("before: %q", gone)
				}
				c.change()
				if gone := found(666); !strings.Contains(strings.Join(gone, "\n"), c.told) {
					t.Errorf("told is %q, want %q", gone, c.told)
				}
				if gone := found(667); (gone != nil) != c.all {
					t.Errorf("told of the other guest is %q", gone)
				}
				repair()
				if gone := found(666); gone != nil {
					t.Fatalf("after: %q", gone)
				}
				if after := ruleset(t); after != before {
					t.Errorf("the packet filter is now\n%s", after)
				}
				out.wants(t, "the forward", host4+":2222", "a for "+outside4)
				out.wants(t, "the forward of IPv6", "["+host6+"]:2222", "a for "+outside6)
				a.wants(t, "the way out", outside4+":7", "outside for "+host4)
				b.wants(t, "the way out of the other", "["+outside6+"]:7", "outside for "+host6)
			})
		}
		t.Run("another table is nobody's business", func(t *testing.T) {
			nft(t, foreign)
			for range 2 { // the second time without reading the tables
				if gone := found(666); gone != nil {
					t.Errorf("told is %q", gone)
				}
			}
		})
	})
}

// TestChangesComeToTheSameAsAllAnew compares the result of a random series of changes
// with that of a single Sync that starts from nothing.
func TestChangesComeToTheSameAsAllAnew(t *testing.T) {
	onHost(t, func(t *testing.T) {
		seed := uint64(time.Now().UnixNano())
		random := rand.New(rand.NewPCG(seed, 0))
		t.Logf("seed %d", seed)
		nft(t, "add table inet other")
		syncWant(t, Want{})
		for range 25 {
			var w Want
			ports := random.Perm(20)
			for _, xid := range random.Perm(8)[:random.IntN(8)] {
				g := Guest{XID: 100 + xid, Name: fmt.Sprint("guest", random.IntN(2), xid), Metadata: random.IntN(2) == 0}
				for range random.IntN(3) {
					f := port.Forward{Host: uint16(2000 + ports[0]), Guest: uint16(1 + random.IntN(3)), Proto: port.TCP}
					ports = ports[1:]
					if random.IntN(2) == 0 {
						f.Proto = port.UDP
					}
					if random.IntN(3) == 0 {
						f.Addr = netip.MustParseAddr([]string{"192.0.2.1", "2001:db8::1", "127.0.0.1", "::1"}[random.IntN(4)])
					}
					g.Forwards = append(g.Forwards, f)
				}
				w.Guests = append(w.Guests, g)
			}
			for i := range random.IntN(4) {
				w.Reserved = append(w.Reserved, netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}))
			}
			switch random.IntN(6) {
			case 0: // somebody else changes something
				nft(t, fmt.Sprint("add chain inet other c", random.IntN(9)))
			case 1: // a kill left half a record
				must(t, os.WriteFile(lockPath, []byte(`{"layout`), 0o600))
			case 2:
				nft(t, "add table inet vservers; flush table inet vservers")
			}
			syncWant(t, w)
			changed := ruleset(t)
			must(t, os.WriteFile(lockPath, nil, 0o600))
			syncWant(t, w)
			if anew := ruleset(t); anew != changed {
				t.Fatalf("after changes:\n%s\nall anew:\n%s", changed, anew)
			}
		}
	})
}

// TestAStartLeavesTheOthersAlone checks that rules and elements of other guests are
// not replaced, not even by equal ones.
func TestAStartLeavesTheOthersAlone(t *testing.T) {
	onHost(t, func(t *testing.T) {
		var guests []Guest
		for i := range 201 {
			g := Guest{XID: 2 + i, Name: fmt.Sprint("guest-", i)}
			for p := range 4 {
				g.Forwards = append(g.Forwards, port.Forward{Host: uint16(2000 + 4*i + p), Guest: 22, Proto: port.TCP})
			}
			guests = append(guests, g)
		}
		syncGuests(t, guests[:200]...)
		syncGuests(t, guests[:200]...)
		before, err := generation()
		must(t, err)
		start := time.Now()
		syncGuests(t, guests...)
		t.Logf("one more beside 200: %v", time.Since(start))
		if after, err := generation(); err != nil || after != before+1 {
			t.Errorf("it took %d transactions, %v", after-before, err)
		}
		start = time.Now()
		gone, err := Drift(context.Background(), guests)
		t.Logf("looked at in %v", time.Since(start))
		if err != nil || len(gone) != 201 || len(gone[2]) != 1 { // they have no devices
			t.Errorf("%d have lost %q, %v", len(gone), gone[2], err)
		}
		handles := rulesByHandle(t)
		syncGuests(t, guests[1:]...)
		if again := rulesByHandle(t); again != handles {
			t.Errorf("the rules are others:\n%s\n%s", handles, again)
		}
		got, err := Show(context.Background())
		if err != nil || len(got) != 200 {
			t.Errorf("Show: %d guests, %v", len(got), err)
		}
	})
}

// rulesByHandle returns the kernel's handles of the rules: a rule that is replaced gets a new one.
func rulesByHandle(t *testing.T) string {
	t.Helper()
	var all []string
	must(t, dumpTables(unix.NFPROTO_INET, unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE, func(attrs map[uint16][]byte) {
		all = append(all, fmt.Sprintf("%s %x", cString(attrs[unix.NFTA_RULE_CHAIN]), attrs[unix.NFTA_RULE_HANDLE]))
	}))
	return strings.Join(all, ", ")
}
