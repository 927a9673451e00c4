package nat

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

const foreign = `table inet mine {
	chain c {
		type filter hook prerouting priority filter; policy accept;
		tcp dport 9 counter packets 0 bytes 0 drop
	}
}
`

func TestSyncReplacesItsTableAndNoOther(t *testing.T) {
	onHost(t, func(t *testing.T) {
		nft(t, foreign)
		empty := ruleset(t)
		guest(t, "a", 666)
		guests := []Guest{
			{XID: 666, Name: "a", Forwards: both(t, "2222", "22")},
			{XID: 667, Name: "b.example", Forwards: forwards(t, "[2001:db8::11]:53:5353/udp", "203.0.113.11:80:80/tcp")},
		}
		syncGuests(t, guests...)
		first := ruleset(t)
		syncGuests(t, guests...)
		if again := ruleset(t); again != first {
			t.Errorf("a second Sync changes the ruleset: %s", cmp.Diff(first, again))
		}
		if !strings.Contains(first, foreign) {
			t.Errorf("the other table has changed:\n%s", first)
		}
		got, err := Show(context.Background())
		must(t, err)
		if d := cmp.Diff(guests, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("Show does not return what Sync was given: %s", d)
		}

		syncGuests(t)
		if end := ruleset(t); end != empty {
			t.Errorf("without guests remains: %s", cmp.Diff(empty, end))
		}
		if got := devices(t); !slices.Equal(got, []string{"lo"}) {
			t.Errorf("without guests remain devices %v", got)
		}
		got, err = Show(context.Background())
		if err != nil || len(got) != 0 {
			t.Errorf("without guests Show returns %v, %v", got, err)
		}
		syncGuests(t) // again, with nothing left to remove
	})
}

func devices(t testing.TB) []string {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	var names []string
	for _, l := range links {
		names = append(names, l.Attrs().Name)
	}
	slices.Sort(names)
	return names
}

func TestSyncTakesMany(t *testing.T) {
	onHost(t, func(t *testing.T) {
		var guests []Guest
		for i := range 3000 {
			g := Guest{XID: 2 + i, Name: fmt.Sprintf("guest-%d", i)}
			for p := range 4 {
				g.Forwards = append(g.Forwards, port.Forward{Host: uint16(2000 + 4*i + p), Guest: 22, Proto: port.TCP})
			}
			guests = append(guests, g)
		}
		start := time.Now()
		syncGuests(t, guests...)
		t.Logf("%d guests with 4 forwards each: %v", len(guests), time.Since(start))
		got, err := Show(context.Background())
		must(t, err)
		if d := cmp.Diff(guests, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("Show does not return what Sync was given: %s", d)
		}
	})
}

func TestSyncRefuses(t *testing.T) {
	onHost(t, func(t *testing.T) {
		one := func(s ...string) []Guest { return []Guest{{XID: 666, Name: "one", Forwards: forwards(t, s...)}} }
		two := func(a, b string) []Guest {
			return append(one(a), Guest{XID: 667, Name: "two", Forwards: forwards(t, b)})
		}
		for name, c := range map[string]struct {
			guests []Guest
			want   []string // words of the error; empty if allowed
		}{
			"one port for two guests":                         {two("80:80/tcp", "80:8080/tcp"), []string{"one", "two", "80/tcp"}},
			"one port for two guests, of one address":         {two("80:80/tcp", "192.0.2.1:80:80/tcp"), []string{"one", "two", "80/tcp"}},
			"one port of one address for two guests":          {two("[2001:db8::1]:80:80/tcp", "[2001:db8::1]:80:81/tcp"), []string{"one", "two"}},
			"an address that means all":                       {[]Guest{{XID: 666, Name: "one", Forwards: []port.Forward{{Addr: netip.IPv6Unspecified(), Host: 1, Guest: 1, Proto: port.TCP}}}}, []string{"leave it out"}},
			"one port twice for one guest":                    {one("80:80/tcp", "80:81/tcp"), []string{"one and one"}},
			"one context for two guests":                      {[]Guest{{XID: 7, Name: "one"}, {XID: 7, Name: "two"}}, []string{"one", "two", "7"}},
			"a context that no guest can have":                {[]Guest{{XID: 1, Name: "one"}}, []string{"one", "context 1"}},
			"a loopback address that is a guest's":            {one("127.2.154.1:80:80/tcp"), []string{"127.2.154.1"}},
			"a link-local address":                            {one("[fe80::1]:80:80/tcp"), []string{"fe80::1"}},
			"localhost, and a port that connections may have": {one("127.0.0.1:40000:22/tcp"), []string{"40000", "32768"}},
			"no protocol":                                     {[]Guest{{XID: 666, Name: "one", Forwards: []port.Forward{{Host: 1, Guest: 1}}}}, []string{"protocol"}},
			"no port":                                         {[]Guest{{XID: 666, Name: "one", Forwards: []port.Forward{{Host: 1, Proto: port.TCP}}}}, []string{"port 0"}},
			"one port by TCP and by UDP":                      {two("80:80/tcp", "80:80/udp"), nil},
			"one port of two addresses":                       {two("192.0.2.1:80:80/tcp", "192.0.2.2:80:80/tcp"), nil},
			"one port of each family":                         {two("192.0.2.1:80:80/tcp", "[2001:db8::1]:80:80/tcp"), nil},
			"such a port on all addresses":                    {one("40000:22/tcp"), nil},
		} {
			t.Run(name, func(t *testing.T) {
				before := ruleset(t)
				err := Sync(context.Background(), func(context.Context) (Want, error) { return Want{Guests: c.guests}, nil })
				if (err == nil) != (c.want == nil) {
					t.Fatalf("Sync: %v", err)
				}
				for _, word := range c.want {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("the error says nothing of %q: %v", word, err)
					}
				}
				if err != nil && ruleset(t) != before {
					t.Error("refused, it changed the ruleset")
				}
			})
		}
		broken := errors.New("no list")
		if err := Sync(context.Background(), func(context.Context) (Want, error) { return Want{}, broken }); !errors.Is(err, broken) {
			t.Errorf("an error of want's: %v", err)
		}
	})
}

func TestReservedAddressesAreNotForwarded(t *testing.T) {
	onHost(t, func(t *testing.T) {
		out := outside(t)
		guest(t, "a", 666)
		(*machine)(nil).serve(t, "own", second4+":2222")
		(*machine)(nil).serve(t, "own6", "["+second6+"]:2222")
		(*machine)(nil).serve(t, "shared", "127.2.154.1:2222")
		syncWant(t, Want{
			Guests:   []Guest{{XID: 666, Name: "a", Forwards: both(t, "2222", "22")}},
			Reserved: []netip.Addr{netip.MustParseAddr(second4), netip.MustParseAddr(second6)},
		})
		out.wants(t, "the host's address", host4+":2222", "a for "+outside4)
		out.wants(t, "a guest's own address", second4+":2222", "own for "+outside4)
		out.wants(t, "a guest's own IPv6 address", "["+second6+"]:2222", "own6 for "+outside6)
		(*machine)(nil).wants(t, "a guest's own address from the host", second4+":2222", "own for "+host4)
		(*machine)(nil).wants(t, "another guest's loopback", "127.2.154.1:2222", "shared for 127.0.0.1")
	})
}

// TestAddAsksForAllOnlyWhereItMust starts guests of all modes one after another.
func TestAddAsksForAllOnlyWhereItMust(t *testing.T) {
	onHost(t, func(t *testing.T) {
		var all Want
		asked := 0
		add := func(what string, more Want, questions int) {
			t.Helper()
			asked = 0
			all.Guests, all.Reserved = append(all.Guests, more.Guests...), append(all.Reserved, more.Reserved...)
			must(t, Add(context.Background(), more, func(context.Context) (Want, error) { asked++; return all, nil }))
			if asked != questions {
				t.Errorf("%s: it asked %d times for all that there should be, want %d", what, asked, questions)
			}
		}
		own := func(addr string) Want { return Want{Reserved: []netip.Addr{netip.MustParseAddr(addr)}} }
		add("an own address, where nobody has a private network", own(second4), 0)
		if len(devices(t)) != 1 || ruleset(t) != "" {
			t.Error("it made something")
		}
		out := outside(t)
		(*machine)(nil).serve(t, "own", second4+":2222")
		(*machine)(nil).serve(t, "own6", "["+second6+"]:2222")
		guest(t, "a", 666)
		add("the first guest behind the host", Want{Guests: []Guest{{XID: 666, Name: "a", Forwards: both(t, "2222", "22")}}}, 1)
		out.wants(t, "an own address of before", second4+":2222", "own for "+outside4)
		out.wants(t, "one that nobody has named", "["+second6+"]:2222", "a for "+outside6)
		add("an own address afterwards", own(second6), 0)
		out.wants(t, "an own address of afterwards", "["+second6+"]:2222", "own6 for "+outside6)
		guest(t, "b", 667)
		add("a second guest", Want{Guests: []Guest{{XID: 667, Name: "b", Forwards: both(t, "2223", "22")}}}, 0)
		out.wants(t, "the first", host4+":2222", "a for "+outside4)
		out.wants(t, "the second", host4+":2223", "b for "+outside4)
		all.Guests = all.Guests[1:] // a has ended, and nobody has noticed
		add("one that takes the port of a guest that ended", Want{Guests: []Guest{{XID: 668, Name: "c", Forwards: both(t, "2222", "22")}}}, 1)
		nft(t, "flush ruleset")
		add("one after somebody flushed all", Want{Guests: []Guest{{XID: 669, Name: "d"}}}, 1)
		if got, err := Show(context.Background()); err != nil || len(got) != 3 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// conversation returns a function that asks addr over UDP, always from the same port.
func conversation(t testing.TB, m *machine, addr string) func() string {
	t.Helper()
	var c net.Conn
	m.do(t, func() (err error) { c, err = net.Dial("udp", addr); return err })
	t.Cleanup(func() { c.Close() })
	return func() string {
		c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := c.Write([]byte("?")); err != nil {
			if _, err = c.Write([]byte("?")); err != nil { // the first error may be left from an earlier packet
				return "nothing: " + err.Error()
			}
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			return "nothing: " + err.Error()
		}
		return string(b[:n])
	}
}

func TestChangedForwardsEndTheirConnections(t *testing.T) {
	onHost(t, func(t *testing.T) {
		out := outside(t)
		guest(t, "a", 666)
		guest(t, "b", 667)
		dns := both(t, "53", "22")
		kept := both(t, "54", "22")
		ask, keep := conversation(t, out, host4+":53"), conversation(t, out, host4+":54")
		ask6 := conversation(t, out, "["+host6+"]:53")
		syncGuests(t, Guest{XID: 666, Name: "a", Forwards: kept}, Guest{XID: 667, Name: "b"})
		for _, step := range []struct {
			name string
			a, b []port.Forward
			want string
		}{
			{"a forward that is new", dns, nil, "a"},
			{"the same", dns, nil, "a"},
			{"a forward that went to another guest", nil, dns, "b"},
			{"a forward that is gone", nil, nil, "nothing"},
			{"and is there again", dns, nil, "a"},
		} {
			ask() // so that conntrack has the conversation as it was
			ask6()
			syncGuests(t, Guest{XID: 666, Name: "a", Forwards: append(step.a, kept...)}, Guest{XID: 667, Name: "b", Forwards: step.b})
			if got := ask(); !strings.HasPrefix(got, step.want) {
				t.Errorf("%s: %s, want %s", step.name, got, step.want)
			}
			if got := ask6(); !strings.HasPrefix(got, step.want) {
				t.Errorf("%s, IPv6: %s, want %s", step.name, got, step.want)
			}
			if got := keep(); got != "a for "+outside4 {
				t.Errorf("%s: the other forward: %s", step.name, got)
			}
		}
	})
}

func TestForwardingKeepsTheHostsOwnIPv6(t *testing.T) {
	onHost(t, func(t *testing.T) {
		outside(t)
		must(t, set(forward4, "0"))
		must(t, set(forward6, "0"))
		must(t, set(ipv6Conf("up0", "accept_ra"), "1"))
		guest(t, "a", 666)
		syncGuests(t, Guest{XID: 666, Name: "a"})
		for path, want := range map[string]string{
			forward4:                       "1",
			forward6:                       "1",
			ipv6Conf("up0", "accept_ra"):   "2",
			ipv6Conf("lo", "accept_ra"):    "1",
			ipv6Conf("vs666", "accept_ra"): "0",
		} {
			if now, err := get(path); err != nil || now != want {
				t.Errorf("%s is %s, %v, want %s", path, now, err, want)
			}
		}
	})
}

func TestReadOnlySettings(t *testing.T) {
	onHost(t, func(t *testing.T) {
		must(t, set(forward4, "0"))
		must(t, unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""))
		must(t, unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		err := Sync(context.Background(), func(context.Context) (Want, error) {
			return Want{Guests: []Guest{{XID: 666, Name: "a"}}}, nil
		})
		if err == nil || !strings.Contains(err.Error(), "ip_forward") || !strings.Contains(err.Error(), "read-only") {
			t.Errorf("Sync: %v", err)
		}
	})
}

// churn is the child of TestKilledAtAnyPoint: it repeats all operations until it is killed.
func churn(t *testing.T, guests []Guest, machines []*machine) {
	for {
		for i, g := range guests {
			must(t, Attach(context.Background(), machines[i].netns, g.XID))
			syncGuests(t, guests[:i+1]...)
		}
		for _, g := range guests {
			must(t, Detach(context.Background(), g.XID))
		}
		syncGuests(t)
	}
}

func TestKilledAtAnyPoint(t *testing.T) {
	guests := []Guest{
		{XID: 666, Name: "a", Forwards: both(t, "2222", "22")},
		{XID: 667, Name: "b", Forwards: both(t, "2223", "22")},
	}
	if pids := os.Getenv("NAT_TEST_CHURN"); pids != "" {
		var machines []*machine
		for _, pid := range strings.Fields(pids) {
			f, err := os.Open("/proc/" + pid + "/ns/net")
			must(t, err)
			machines = append(machines, &machine{netns: f})
		}
		churn(t, guests, machines)
	}
	onHost(t, func(t *testing.T) {
		out := outside(t)
		a, b := newMachine(t, "a", 666), newMachine(t, "b", 667)
		a.serve(t, "a", ":22")
		b.serve(t, "b", ":22")
		empty, nothing := ruleset(t), devices(t)
		rounds := 25
		if testing.Short() {
			rounds = 5
		}
		for round := range rounds {
			cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("NAT_TEST_CHURN=%d %d", a.pid, b.pid))
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
			must(t, cmd.Start())
			time.Sleep(time.Duration(10+rand.IntN(120)) * time.Millisecond) // the moment of the kill, not a wait
			must(t, cmd.Process.Kill())
			cmd.Wait()

			must(t, Attach(context.Background(), a.netns, 666))
			must(t, Attach(context.Background(), b.netns, 667))
			syncGuests(t, guests...)
			if got := out.ask("tcp", host4+":2222"); got != "a for "+outside4 {
				t.Errorf("round %d: %s", round, got)
			}
			if got := b.ask("udp", "["+host6+"]:2222"); got != "a for fd76:7365:7276:1cad::29b" {
				t.Errorf("round %d: %s", round, got)
			}
			syncGuests(t)
			if end := ruleset(t); end != empty {
				t.Fatalf("round %d: left over: %s", round, cmp.Diff(empty, end))
			}
			if end := devices(t); !slices.Equal(end, nothing) {
				t.Fatalf("round %d: left over: %v", round, end)
			}
		}
	})
}
