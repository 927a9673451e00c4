package guest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	checks "github.com/vsfleet/vsfleet/node/check"
)

// An address that the host had before stays the host's after the stop.
func TestHostsOwnAddressStays(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeOwn, "keeps", 103, "sleep", "1000")
	g.Network.Addresses = []netip.Prefix{netip.MustParsePrefix("198.51.100.78/24")}
	link, err := netlink.LinkByName("eth0")
	must(t, err)
	addr, err := netlink.ParseAddr("198.51.100.78/24")
	must(t, err)
	must(t, netlink.AddrAdd(link, addr))
	t.Cleanup(func() { must(t, netlink.AddrDel(link, addr)) })
	before := traces(t)
	must(t, h.Create(ctx, g))
	var warnings []string
	must(t, h.Start(ctx, g.Name, Options{Warn: func(s string) { warnings = append(warnings, s) }}))
	if all := strings.Join(warnings, "\n"); !strings.Contains(all, "198.51.100.78 is the host's own") {
		t.Errorf("warnings %q", all)
	}
	must(t, h.Delete(ctx, g.Name))
	if after := traces(t); after != before {
		t.Errorf("changed:\nbefore %s\nafter  %s", before, after)
	}
}

func TestAddressesThatTheHostHasElsewhere(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	for _, row := range []struct {
		name   string
		mode   api.Mode
		change func(*api.Network)
		want   []string
	}{
		{"a shared address that the host does not have", api.ModeShared,
			func(n *api.Network) { n.Addresses = []netip.Prefix{netip.MustParsePrefix("198.51.100.99/24")} },
			[]string{"198.51.100.99", "does not have", "it has 198.51.100.1"}},
		{"an address of its own that is on another device", api.ModeOwn,
			func(n *api.Network) { n.Addresses, n.Dev = []netip.Prefix{hostAddress}, "peer0" },
			[]string{"198.51.100.1 is on device eth0", "peer0"}},
		{"a device that is not there", api.ModeOwn, func(n *api.Network) { n.Dev = "eth7" }, []string{"eth7"}},
	} {
		g := inMode(row.mode, "elsewhere", 118, "sleep", "1000")
		row.change(&g.Network)
		must(t, h.Create(ctx, g))
		err := h.Start(ctx, g.Name, Options{})
		for _, want := range row.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", row.name, err, want)
			}
		}
		must(t, h.Delete(ctx, g.Name))
	}
}

func TestAGuestThatHoldsThePortIsNamed(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	a := inMode(api.ModeShared, "holder", 140, "httpd", "-f", "-p", "8080", "-h", "/etc")
	must(t, h.Create(ctx, a))
	must(t, h.Start(ctx, a.Name, Options{}))
	fetch(t, "198.51.100.1:8080")
	a.Network.Ports, _ = parseAll([]string{"8085"}, port.Parse)
	_, err := h.Configure(ctx, a) // its listener stays until a restart
	must(t, err)
	b := inMode(api.ModeShared, "heir", 141, "sleep", "1000")
	must(t, h.Create(ctx, b))
	err = h.Start(ctx, b.Name, Options{})
	if err == nil || !strings.Contains(err.Error(), "guest holder, httpd (pid ") || !strings.Contains(err.Error(), "restart that guest") {
		t.Errorf("error %v", err)
	}
}

// A guest with an address of its own starts all the same: which of its ports it will
// use is unknown.
func TestHostsListenerIsAWarningForOwnAddresses(t *testing.T) {
	ctx := context.Background()
	l, err := net.Listen("tcp4", "0.0.0.0:8081")
	must(t, err)
	defer l.Close()
	h := host(t)
	g := inMode(api.ModeOwn, "warned", 107, "sleep", "1000")
	must(t, h.Create(ctx, g))
	var warnings []string
	must(t, h.Start(ctx, g.Name, Options{Warn: func(s string) { warnings = append(warnings, s) }}))
	if all := strings.Join(warnings, "\n"); !strings.Contains(all, "8081") {
		t.Errorf("warnings %q", all)
	}
}

func TestPortsThatConnectionsMayTakeAreAWarning(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "loose", 142, "sleep", "1000")
	g.Network.Ports, _ = parseAll([]string{"8080", "51820/udp"}, port.Parse)
	must(t, h.Create(ctx, g))
	var warnings []string
	must(t, h.Start(ctx, g.Name, Options{Warn: func(s string) { warnings = append(warnings, s) }}))
	if all := strings.Join(warnings, "\n"); !strings.Contains(all, "ports 51820/udp are in") || strings.Contains(all, "wildcard") {
		t.Errorf("warnings %q", all)
	}
}

func TestUDPOnOneOfSeveralAddressesIsAWarning(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "dns", 143, "sleep", "1000")
	g.Network.Ports, _ = parseAll([]string{"53/tcp", "53/udp"}, port.Parse)
	link, err := netlink.LinkByName("eth0")
	must(t, err)
	addr, err := netlink.ParseAddr("198.51.100.79/24")
	must(t, err)
	must(t, netlink.AddrAdd(link, addr))
	t.Cleanup(func() { must(t, netlink.AddrDel(link, addr)) })
	g.Network.Addresses = append(g.Network.Addresses, netip.MustParsePrefix("198.51.100.79/24"))
	must(t, h.Create(ctx, g))
	var warnings []string
	must(t, h.Start(ctx, g.Name, Options{Warn: func(s string) { warnings = append(warnings, s) }}))
	if all := strings.Join(warnings, "\n"); !strings.Contains(all, "a service on 53/udp that listens on the wildcard receives on 198.51.100.1 alone") {
		t.Errorf("warnings %q", all)
	}
}

// TestPortThatAGuestLacksIsNamed: a passive ftpd's, for example.
func TestPortThatAGuestLacksIsNamed(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "ftp", 111, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	row := func() api.CheckRow {
		c, err := checks.Run(ctx)
		must(t, err)
		for _, r := range c.Rows {
			if r.Name == "ports of guests" {
				return r
			}
		}
		t.Fatal("no such row")
		return api.CheckRow{}
	}
	if r := row(); r.Verdict != api.Yes {
		t.Errorf("before: %+v", r)
	}
	if out, code := run(t, h, g.Name, "httpd", "-p", "50000", "-h", "/etc"); code == 0 {
		t.Fatalf("it has the port: %s", out)
	}
	if r := row(); r.Verdict != api.No || !strings.Contains(r.Detail, "guest ftp was refused port 50000/tcp") || !strings.Contains(r.Cure, "`ports`") {
		t.Errorf("after: %+v", r)
	}
}

func TestHostsListenerOnEveryAddressIsNamed(t *testing.T) {
	ctx := context.Background()
	l, err := net.Listen("tcp4", "0.0.0.0:8080")
	must(t, err)
	defer l.Close()
	h := host(t)
	g := inMode(api.ModeShared, "taken", 104, "sleep", "1000")
	must(t, h.Create(ctx, g))
	err = h.Start(ctx, g.Name, Options{})
	if err == nil || !strings.Contains(err.Error(), "8080") || !strings.Contains(err.Error(), fmt.Sprint("pid ", os.Getpid())) {
		t.Errorf("error %v does not name the port and the program", err)
	}
}

// TestPingsOfAGuest: the rules that set their source address come and go with the
// guest, and are restored; if a guest may not ping, there is a warning.
func TestPingsOfAGuest(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeOwn, "pings", 144, "sleep", "1000")
	const knob = "/proc/sys/net/ipv4/ping_group_range"
	old, err := os.ReadFile(knob)
	must(t, err)
	must(t, os.WriteFile(knob, []byte("1 0"), 0))
	t.Cleanup(func() { must(t, os.WriteFile(knob, old, 0)) })
	before := traces(t)
	must(t, h.Create(ctx, g))
	var warnings []string
	must(t, h.Start(ctx, g.Name, Options{Warn: func(s string) { warnings = append(warnings, s) }}))
	if all := strings.Join(warnings, "\n"); !strings.Contains(all, "net.ipv4.ping_group_range is 1 0; sysctl -w") {
		t.Errorf("warnings %q", all)
	}
	table := func() bool { return exec.Command("nft", "list", "table", "inet", "vservers_ping").Run() == nil }
	if !table() {
		t.Error("no rules while it runs")
	}
	must(t, exec.Command("nft", "flush", "ruleset").Run())
	gone, err := h.Drift(ctx, g.Name)
	must(t, err)
	if all := strings.Join(gone[g.Name], "; "); !strings.Contains(all, "source of its pings is gone") {
		t.Errorf("flushed: %q", all)
	}
	_, err = h.Repair(ctx, g.Name)
	must(t, err)
	if !table() {
		t.Error("no rules once repaired")
	}
	must(t, h.Delete(ctx, g.Name))
	if table() {
		t.Error("rules stay when it is gone")
	}
	if after := traces(t); after != before {
		t.Errorf("changed:\nbefore %s\nafter  %s", before, after)
	}
}

// TestAddressOfANeighbourIsRefused: for example of a guest that was moved and still
// runs on its old host.
func TestAddressOfANeighbourIsRefused(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	neighbour := exec.Command("sleep", "1000")
	neighbour.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	must(t, neighbour.Start())
	t.Cleanup(func() {
		must(t, neighbour.Process.Kill())
		neighbour.Wait()
	})
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "lan1"}
	must(t, netlink.LinkAdd(veth))
	t.Cleanup(func() { must(t, netlink.LinkDel(veth)) })
	peer, err := netlink.LinkByName("lan1")
	must(t, err)
	must(t, netlink.LinkSetNsPid(peer, neighbour.Process.Pid))
	ns, err := netns.GetFromPid(neighbour.Process.Pid)
	must(t, err)
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns)
	must(t, err)
	defer inside.Close()
	there, err := inside.LinkByName("lan1")
	must(t, err)
	addr, err := netlink.ParseAddr("192.0.2.10/24")
	must(t, err)
	must(t, inside.AddrAdd(there, addr))
	must(t, inside.LinkSetUp(there))
	must(t, netlink.LinkSetUp(veth))
	// A veth sends only once the kernel has noticed its carrier.
	for up := false; !up; {
		link, err := netlink.LinkByName("lan0")
		must(t, err)
		up = link.Attrs().RawFlags&syscall.IFF_RUNNING != 0
	}

	g := inMode(api.ModeOwn, "moved", 145, "sleep", "1000")
	g.Network.Dev = "lan0"
	g.Network.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}
	must(t, h.Create(ctx, g))
	before := traces(t)
	err = h.Start(ctx, g.Name, Options{})
	if want := there.Attrs().HardwareAddr.String(); err == nil || !strings.Contains(err.Error(), "another machine on lan0 already has 192.0.2.10 ("+want+")") {
		t.Errorf("started: %v", err)
	}
	if after := traces(t); after != before {
		t.Errorf("left by the start:\nbefore %s\nafter  %s", before, after)
	}
	must(t, inside.AddrDel(there, addr))
	must(t, h.Start(ctx, g.Name, Options{}))
	must(t, h.Delete(ctx, g.Name))
}

// TestFirewallOfTheHostIsNamed: a policy that drops makes a guest's ports unreachable
// without any message.
func TestFirewallOfTheHostIsNamed(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "walled", 146, "sleep", "1000")
	g.Network.Ports, _ = parseAll([]string{"8080/tcp", "53/udp"}, port.Parse)
	must(t, h.Create(ctx, g))
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table inet walled {\nchain input {\ntype filter hook input priority 0; policy drop;\nudp dport 53 accept\n}\n}\n")
	must(t, cmd.Run())
	var warnings []string
	err := h.Start(ctx, g.Name, Options{Warn: func(s string) { warnings = append(warnings, s) }})
	must(t, exec.Command("nft", "delete", "table", "inet", "walled").Run())
	must(t, err)
	if all := strings.Join(warnings, "\n"); !strings.Contains(all, "chain inet walled input drops what comes in, and no rule there names 8080/tcp: ") {
		t.Errorf("warnings %q", all)
	}
	must(t, h.Delete(ctx, g.Name))
}
