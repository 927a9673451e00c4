package guest

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// The guest's program runs through all of it: its process stays the same.
func TestRunningGuestIsChanged(t *testing.T) {
	ctx := context.Background()
	ports := func(words ...string) []port.Range {
		list, err := parseAll(words, port.Parse)
		must(t, err)
		return list
	}
	forwards := func(words ...string) []port.Forward {
		list, err := parseAll(words, port.ParseForward)
		must(t, err)
		return list
	}
	for _, row := range []struct {
		mode   api.Mode
		change func(*api.Network)
		after  string // where the new port is reached
		gone   string // what can no longer be reached
	}{
		{api.ModeShared, func(n *api.Network) { n.Ports = ports("8080", "8082") }, "198.51.100.1:8082", ""},
		{api.ModeNAT, func(n *api.Network) { n.Forwards = forwards("9091:8082") }, "198.51.100.1:9091", "198.51.100.1:9090"},
	} {
		t.Run(string(row.mode), func(t *testing.T) {
			h := host(t)
			g := inMode(row.mode, "live-"+string(row.mode), 108, "httpd", "-f", "-p", "8080", "-h", "/etc")
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			before, err := h.State(g.Name)
			must(t, err)
			if before.Runs != nil {
				t.Errorf("just started, it runs with %+v", before.Runs)
			}
			if out, code := run(t, h, g.Name, "httpd", "-p", "8082", "-h", "/etc"); row.mode == api.ModeShared && code == 0 {
				t.Errorf("it has port 8082 before it is given: %s", out)
			}
			row.change(&g.Network)
			outcome, err := h.Configure(ctx, g)
			if err != nil || outcome != api.Changed {
				t.Fatalf("%v, %v", outcome, err)
			}
			if row.mode == api.ModeShared {
				if out, code := run(t, h, g.Name, "httpd", "-p", "8082", "-h", "/etc"); code != 0 {
					t.Fatalf("httpd on the new port: %s", out)
				}
			}
			if got := fetch(t, row.after); !strings.Contains(got, "root:x:0:0") {
				t.Errorf("from %s came %q", row.after, got)
			}
			if row.gone != "" {
				if c, err := net.Dial("tcp", row.gone); err == nil {
					c.Close()
					t.Errorf("%s still leads inside", row.gone)
				}
			}
			after, err := h.State(g.Name)
			must(t, err)
			if after.InitPID != before.InitPID || after.Runs != nil {
				t.Errorf("init was %d and is %d; it runs with %+v", before.InitPID, after.InitPID, after.Runs)
			}
			if outcome, err := h.Configure(ctx, g); err != nil || outcome != api.Unchanged {
				t.Errorf("once more: %v, %v", outcome, err)
			}
		})
	}
}

// TestMetadataIsRefusedUntilItIsAllowed has a cloud's metadata service on the host.
func TestMetadataIsRefusedUntilItIsAllowed(t *testing.T) {
	ctx := context.Background()
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	cloud, err := netlink.ParseAddr("169.254.169.254/32")
	must(t, err)
	must(t, netlink.AddrAdd(lo, cloud))
	defer netlink.AddrDel(lo, cloud)
	l, err := net.Listen("tcp", "169.254.169.254:80")
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "credentials")
			c.Close()
		}
	}()
	for _, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			g := inMode(mode, "cloud-"+string(mode), 110, "sleep", "1000")
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			for _, allowed := range []bool{false, true, false} {
				g.Network.Metadata = allowed
				_, err := h.Configure(ctx, g)
				must(t, err)
				if got, _ := run(t, h, g.Name, "nc", "-w", "5", "169.254.169.254", "80"); (got == "credentials") != allowed {
					t.Errorf("allowed %v: it hears %q", allowed, got)
				}
				if st, err := h.State(g.Name); err != nil || st.Runs != nil {
					t.Errorf("it runs with %+v, %v", st.Runs, err)
				}
			}
		})
	}
}

// The state a vsnode leaves that was killed between configuring and changing.
func TestConfiguredAndNotYetChangedIsFinished(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "behind", 109, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	old := g
	g.Network.Ports = append(slices.Clone(g.Network.Ports), port.Range{Proto: port.TCP, First: 8082, Last: 8082})
	must(t, h.write(g, h.rootDir(g.Name)))
	st, err := h.State(g.Name)
	must(t, err)
	if st.Runs == nil || len(st.Runs.Network.Ports) != len(old.Network.Ports) {
		t.Fatalf("it runs with %+v", st.Runs)
	}
	if outcome, err := h.Configure(ctx, g); err != nil || outcome != api.Changed {
		t.Errorf("%v, %v", outcome, err)
	}
	if st, err = h.State(g.Name); err != nil || st.Runs != nil {
		t.Errorf("it runs with %+v, %v", st.Runs, err)
	}
}

func TestWhatNeedsARestartWaitsForIt(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "waits", 110, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	g.Hostname = "another"
	_, err := h.Configure(ctx, g)
	must(t, err)
	st, err := h.State(g.Name)
	if err != nil || st.Runs == nil || st.Runs.Hostname == "another" {
		t.Errorf("it runs with %+v, %v", st.Runs, err)
	}
	_, err = h.Stop(ctx, g.Name)
	must(t, err)
	must(t, h.Start(ctx, g.Name, Options{}))
	if st, err = h.State(g.Name); err != nil || st.Runs != nil {
		t.Errorf("after a restart it runs with %+v, %v", st.Runs, err)
	}
}

func TestPortOfTheHostIsNotGivenToARunningGuest(t *testing.T) {
	ctx := context.Background()
	l, err := net.Listen("tcp4", "0.0.0.0:8082")
	must(t, err)
	defer l.Close()
	h := host(t)
	g := inMode(api.ModeShared, "refused", 111, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	g.Network.Ports = append(slices.Clone(g.Network.Ports), port.Range{Proto: port.TCP, First: 8082, Last: 8082})
	if _, err := h.Configure(ctx, g); err == nil || !strings.Contains(err.Error(), "8082") || !strings.Contains(err.Error(), "goes on running as it was") {
		t.Errorf("error %v", err)
	}
}

// Limits need cgroup v2 with controllers, as test/kernel has it. Elsewhere the limit on
// processes applies from the next start, and other limits are refused.
func TestLimitsOfARunningGuestAreChanged(t *testing.T) {
	ctx := context.Background()
	mount, err := cgroup.Mount()
	must(t, err)
	have, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	must(t, err)
	h := host(t)
	g := inMode(api.ModeShared, "limited", 112, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	g.Limits.Processes = 7
	_, err = h.Configure(ctx, g)
	must(t, err)
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	if !strings.Contains(string(have), "pids") {
		// Reported as not yet in effect, and in effect after a restart.
		st, err := h.State(g.Name)
		must(t, err)
		if st.Limits.Processes != 7 || st.Runs == nil || st.Runs.Limits.Processes != 0 {
			t.Errorf("configured %d, runs with %+v", st.Limits.Processes, st.Runs)
		}
		_, err = h.Stop(ctx, g.Name)
		must(t, err)
		must(t, h.Start(ctx, g.Name, Options{}))
		// More than the limit allows.
		if out, code := run(t, h, g.Name, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1000 >/dev/null 2>&1 & done"); code == 0 {
			t.Errorf("9 processes beside the init: %q", out)
		}
		if pids, err := cg.PIDs(); err != nil || len(pids) > 7 {
			t.Errorf("processes %v, %v, want 7 at most", pids, err)
		}
		g.Limits.MemoryBytes = 64 << 20
		if _, err := h.Configure(ctx, g); err == nil || !strings.Contains(err.Error(), "systemd.unified_cgroup_hierarchy=1") {
			t.Errorf("error %v", err)
		}
		return
	}
	for _, want := range []string{"7", "max"} {
		b, err := os.ReadFile(filepath.Join(string(cg), pidsFile))
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s is %q, %v, want %s", pidsFile, b, err, want)
		}
		g.Limits.Processes = 0
		_, err = h.Configure(ctx, g)
		must(t, err)
	}
	g.Limits = api.Limits{MemoryBytes: 64<<20 + 1, CPUs: 0.29, Processes: 9}
	_, err = h.Configure(ctx, g)
	must(t, err)
	for file, value := range map[string]string{memoryFile: "max", cpuFile: "max", pidsFile: "max"} {
		must(t, os.WriteFile(filepath.Join(string(cg), file), []byte(value), 0))
	}
	drift, err := h.Drift(ctx)
	if err != nil || len(drift[g.Name]) != 3 {
		t.Errorf("limits that somebody lifted: %q, %v", drift[g.Name], err)
	}
	if outcome, err := h.Repair(ctx, g.Name); err != nil || outcome != api.Changed {
		t.Errorf("repair: %v, %v", outcome, err)
	}
	if b, err := os.ReadFile(filepath.Join(string(cg), pidsFile)); err != nil || strings.TrimSpace(string(b)) != "9" {
		t.Errorf("%s is %q, %v", pidsFile, b, err)
	}
}

func TestFlushedPacketFilterIsMadeAnew(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "flushed", 113, "httpd", "-f", "-p", "8080", "-h", "/etc")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	fetch(t, "198.51.100.1:9090")
	conn, err := nftables.New()
	must(t, err)
	for _, flush := range []func(){
		conn.FlushRuleset,
		func() { conn.FlushTable(&nftables.Table{Name: "vservers", Family: nftables.TableFamilyINet}) },
	} {
		flush()
		must(t, conn.Flush())
		if c, err := net.Dial("tcp", "198.51.100.1:9090"); err == nil {
			c.Close()
			t.Fatal("without the packet filter the forward still leads inside")
		}
		must(t, h.Sweep(ctx))
		if got := fetch(t, "198.51.100.1:9090"); !strings.Contains(got, "root:x:0:0") {
			t.Errorf("afterwards came %q", got)
		}
	}
}

// An administrator who makes a mistake in the configuration of a running guest must not
// cut it off when another guest starts or stops.
func TestMistakeInTheConfigurationCutsNobodyOff(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "edited", 114, "httpd", "-f", "-p", "8080", "-h", "/etc")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	must(t, os.WriteFile(filepath.Join(h.config(g.Name), "netns/forward"), []byte("nonsense\n"), 0o644))
	other := inMode(api.ModeNAT, "other", 115, "sleep", "1000")
	other.Network.Forwards = nil
	must(t, h.Create(ctx, other))
	must(t, h.Start(ctx, other.Name, Options{}))
	if got := fetch(t, "198.51.100.1:9090"); !strings.Contains(got, "root:x:0:0") {
		t.Errorf("came %q", got)
	}
	_, err := h.Stop(ctx, other.Name)
	must(t, err)
	must(t, h.Sweep(ctx))
	fetch(t, "198.51.100.1:9090")
}

func TestAddressOfARunningGuestStaysWhileItsConfigurationIsBroken(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	a := inMode(api.ModeOwn, "first", 116, "httpd", "-f", "-p", "8080", "-h", "/etc")
	must(t, h.Create(ctx, a))
	must(t, h.Start(ctx, a.Name, Options{}))
	must(t, os.WriteFile(filepath.Join(h.config(a.Name), "interfaces/0/ip"), []byte("nonsense\n"), 0o644))
	b := inMode(api.ModeOwn, "second", 117, "sleep", "1000")
	must(t, h.Create(ctx, b)) // its configuration does not show that the address is taken
	if err := h.Start(ctx, b.Name, Options{}); err == nil || !strings.Contains(err.Error(), "vserver first stop") {
		t.Errorf("a second guest with the address: %v", err)
	}
	must(t, h.Delete(ctx, b.Name))
	fetch(t, "198.51.100.77:8080")
}
