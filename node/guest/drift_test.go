package guest

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/netctx"
)

// What is taken from a running guest is reported, and restored while the guest keeps
// running, by a repair and by any call that changes the host.
func TestWhatIsTakenFromARunningGuestIsPutBack(t *testing.T) {
	const shared, own, behind = api.ModeShared, api.ModeOwn, api.ModeNAT
	for _, row := range []struct {
		name string
		mode api.Mode
		take func(t *testing.T, h *Host, g api.Guest)
		told string
	}{
		{"an address", own, func(t *testing.T, h *Host, g api.Guest) { removeAddress(t, "eth0", "198.51.100.77/24") }, "address 198.51.100.77 is gone from eth0"},
		{"an IPv6 address, by its device", own, func(t *testing.T, h *Host, g api.Guest) {
			eth0 := device(t, "eth0")
			must(t, netlink.LinkSetDown(eth0))
			must(t, netlink.LinkSetUp(eth0))
		}, "address 2001:db8:77::77 is gone from eth0"},
		{"the address of its ::1", shared, func(t *testing.T, h *Host, g api.Guest) {
			removeAddress(t, "lo", netip.PrefixFrom(netctx.Loopback6(g.Context), 128).String())
		}, "is gone from lo"},
		{"one network program", shared, func(t *testing.T, h *Host, g api.Guest) { detach(t, h, g.Name, ebpf.AttachCGroupInet4Bind) }, "1 of the "},
		{"those that see its packets", own, func(t *testing.T, h *Host, g api.Guest) {
			detach(t, h, g.Name, ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress)
		}, "2 of the "},
		{"the file of its context", shared, func(t *testing.T, h *Host, g api.Guest) { must(t, os.Remove(h.runFile(g.Name))) }, "/run/vservers/taken is gone"},
		{"its device", behind, func(t *testing.T, h *Host, g api.Guest) { must(t, netlink.LinkDel(device(t, "vs150"))) }, "device vs150 is gone"},
		{"its device's state", behind, func(t *testing.T, h *Host, g api.Guest) { must(t, netlink.LinkSetDown(device(t, "vs150"))) }, "device vs150 is down"},
		{"the gateway's address", behind, func(t *testing.T, h *Host, g api.Guest) { removeAddress(t, "vs150", "100.64.0.1/32") }, "address 100.64.0.1 is gone from vs150"},
		{"its route", behind, func(t *testing.T, h *Host, g api.Guest) {
			routes, err := netlink.RouteList(device(t, "vs150"), netlink.FAMILY_V4)
			must(t, err)
			for _, r := range routes {
				must(t, netlink.RouteDel(&r))
			}
		}, "the route to 100.64.0.150 is gone from vs150"},
		{"forwarding", behind, func(t *testing.T, h *Host, g api.Guest) {
			must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
		}, "/proc/sys/net/ipv4/ip_forward is 0"},
		{"the packet filter", behind, func(t *testing.T, h *Host, g api.Guest) {
			filter(t, func(c *nftables.Conn) { c.FlushRuleset() })
		}, "nftables table inet vservers"},
		{"the rules of its packet filter", behind, func(t *testing.T, h *Host, g api.Guest) {
			filter(t, func(c *nftables.Conn) {
				c.FlushTable(&nftables.Table{Name: "vservers", Family: nftables.TableFamilyINet})
			})
		}, "nftables table inet vservers"},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			before := traces(t)
			g := inMode(row.mode, "taken", 150, "httpd", "-f", "-p", "8080", "-h", "/etc")
			address := map[api.Mode]string{shared: "198.51.100.1:8080", own: "[2001:db8:77::77]:8080", behind: "198.51.100.1:9090"}[row.mode]
			if row.mode == own {
				g.Network.Addresses = append(g.Network.Addresses, netip.MustParsePrefix("2001:db8:77::77/64"))
			}
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			fetch(t, address)
			was, err := h.State(g.Name)
			must(t, err)
			whole := func(when string) {
				t.Helper()
				if drift, err := h.Drift(ctx); err != nil || len(drift) > 0 {
					t.Errorf("%s: %v, %v", when, drift, err)
				}
				fetch(t, address)
			}
			whole("just started")
			row.take(t, h, g)
			must(t, h.Clean(ctx))
			drift, err := h.Drift(ctx)
			if err != nil || !strings.Contains(strings.Join(drift[g.Name], "\n"), row.told) {
				t.Errorf("told is %q, %v, want %q", drift[g.Name], err, row.told)
			}
			if outcome, err := h.Repair(ctx, g.Name); err != nil || outcome != api.Changed {
				t.Errorf("repair: %v, %v", outcome, err)
			}
			whole("after the repair")
			if outcome, err := h.Repair(ctx, g.Name); err != nil || outcome != api.Unchanged {
				t.Errorf("once more: %v, %v", outcome, err)
			}
			row.take(t, h, g)
			must(t, h.Sweep(ctx))
			whole("after a sweep")
			if st, err := h.State(g.Name); err != nil || st.InitPID != was.InitPID {
				t.Errorf("state %+v, %v", st, err)
			}
			must(t, h.Delete(ctx, g.Name))
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

// Pins hold what all guests of a version share. Nothing can restore them for programs
// that are attached: the error names the cure.
func TestPinsThatAreGoneAreTold(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "unpinned", 152, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	must(t, os.RemoveAll("/sys/fs/bpf/vservers"))
	drift, err := h.Drift(ctx)
	if err != nil || !strings.Contains(strings.Join(drift[g.Name], "\n"), "pins of its network programs are gone") {
		t.Errorf("told is %q, %v", drift[g.Name], err)
	}
	if _, err := h.Repair(ctx, g.Name); err == nil || !strings.Contains(err.Error(), "restart the guest") {
		t.Errorf("repair: %v", err)
	}
	_, err = h.Stop(ctx, g.Name)
	must(t, err)
	must(t, h.Start(ctx, g.Name, Options{}))
	if drift, err := h.Drift(ctx); err != nil || len(drift) > 0 {
		t.Errorf("after a restart: %v, %v", drift, err)
	}
}

// A repair switches on a device that an administrator switched off; a call for
// something else does not.
func TestDeviceThatIsOffStaysSoUntilTheRepair(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeOwn, "off", 151, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	must(t, netlink.LinkSetDown(device(t, "eth0")))
	must(t, h.Sweep(ctx))
	if device(t, "eth0").Attrs().OperState == netlink.OperUp {
		t.Error("a sweep switched it on")
	}
	drift, err := h.Drift(ctx)
	if err != nil || !strings.Contains(strings.Join(drift[g.Name], "\n"), "device eth0 is down") {
		t.Errorf("told is %q, %v", drift[g.Name], err)
	}
	_, err = h.Repair(ctx, g.Name)
	must(t, err)
	if drift, err := h.Drift(ctx); err != nil || len(drift) > 0 {
		t.Errorf("after the repair: %v, %v", drift, err)
	}
}

func device(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func removeAddress(t *testing.T, dev, address string) {
	t.Helper()
	a, err := netlink.ParseAddr(address)
	must(t, err)
	must(t, netlink.AddrDel(device(t, dev), a))
}

func filter(t *testing.T, change func(*nftables.Conn)) {
	t.Helper()
	conn, err := nftables.New()
	must(t, err)
	change(conn)
	must(t, conn.Flush())
}

// detach removes programs from a guest's cgroup.
func detach(t *testing.T, h *Host, name string, hooks ...ebpf.AttachType) {
	t.Helper()
	_, cg, err := h.cgroup(name)
	must(t, err)
	dir, err := os.Open(string(cg))
	must(t, err)
	defer dir.Close()
	for _, at := range hooks {
		on, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: at})
		must(t, err)
		for _, attached := range on.Programs {
			p, err := ebpf.NewProgramFromID(attached.ID)
			must(t, err)
			defer p.Close()
			must(t, link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: at}))
		}
	}
}
