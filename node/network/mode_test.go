package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/netctx"
)

// modes has a row for each mode. What the interface promises is tested the same way for
// all.
var modes = []struct {
	mode    Mode
	network api.Network
	address string                                  // where its port 8080 is reached
	take    map[string]func(t *testing.T, g *Guest) // ways to take something away, by the text of Drift
}{
	{Shared, api.Network{Mode: api.ModeShared, Addresses: prefixes("198.51.100.1/24"), Ports: ports("8080")}, "198.51.100.1:8080", map[string]func(*testing.T, *Guest){
		"is gone from lo": takeLoopback,
	}},
	{Own, api.Network{Mode: api.ModeOwn, Addresses: prefixes("198.51.100.77/24"), Dev: "eth0"}, "198.51.100.77:8080", map[string]func(*testing.T, *Guest){
		"is gone from lo":                         takeLoopback,
		"address 198.51.100.77 is gone from eth0": func(t *testing.T, _ *Guest) { takeAddress(t, "eth0", "198.51.100.77/24") },
	}},
	{NAT, api.Network{Mode: api.ModeNAT, Forwards: forwards("9090:8080")}, "198.51.100.1:9090", map[string]func(*testing.T, *Guest){
		"device vs666 is": func(t *testing.T, g *Guest) {
			link, err := netlink.LinkByName(fmt.Sprint("vs", g.Context))
			must(t, err)
			must(t, netlink.LinkDel(link))
		},
	}},
}

func ports(words ...string) (list []port.Range) {
	for _, w := range words {
		r, err := port.Parse(w)
		if err != nil {
			panic(err)
		}
		list = append(list, r)
	}
	return list
}

func forwards(words ...string) (list []port.Forward) {
	for _, w := range words {
		f, err := port.ParseForward(w)
		if err != nil {
			panic(err)
		}
		list = append(list, f)
	}
	return list
}

func takeLoopback(t *testing.T, g *Guest) {
	t.Helper()
	takeAddress(t, "lo", netctx.Loopback6(g.Context).String()+"/128")
}

func takeAddress(t *testing.T, dev, address string) {
	t.Helper()
	link, err := netlink.LinkByName(dev)
	must(t, err)
	a, err := netlink.ParseAddr(address)
	must(t, err)
	must(t, netlink.AddrDel(link, a))
}

// eachMode runs body with a guest of each mode that has a process and no network yet.
// Afterwards nothing may be left.
func eachMode(t *testing.T, body func(t *testing.T, m Mode, g *Guest, p *process)) {
	for _, row := range modes {
		t.Run(string(row.network.Mode), func(t *testing.T) {
			before := kernelState(t)
			g := newGuest(t, row.mode, row.network)
			p := newProcess(t, g.Cgroup, g.Context, row.mode.Private())
			g.Netns = p.netns
			body(t, row.mode, g, p)
			if after := kernelState(t); after != before {
				t.Errorf("there was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

func newGuest(t *testing.T, m Mode, n api.Network) *Guest {
	t.Helper()
	notes := FirstNotes(m)
	guests := neighbours{}
	return &Guest{
		Guest: api.Guest{Name: "www", Context: 666, Network: n}, Cgroup: newCgroup(t, string(n.Mode)),
		Notes: &notes, Save: func() error { return nil }, Others: guests,
		Warn: func(text string) { t.Log(text) },
	}
}

// renewCgroup gives a guest of the host's network a cgroup without programs, as each
// start does. Its process stays behind: these tests do not need it.
func renewCgroup(t *testing.T, m Mode, g *Guest) {
	t.Helper()
	if !m.Private() {
		g.Cgroup = newCgroup(t, string(g.Network.Mode))
	}
}

// attach connects a guest and lists it as running.
func attach(t *testing.T, m Mode, g *Guest) {
	t.Helper()
	ctx := context.Background()
	must(t, m.Validate(g.Network))
	must(t, m.Check(ctx, g))
	must(t, m.Attach(ctx, g))
	g.Others.(neighbours)[g.Name] = g.Guest
	must(t, Publish(ctx, g))
}

// release ends the guest and releases what it had.
func release(t *testing.T, m Mode, g *Guest, p *process) {
	t.Helper()
	p.end()
	delete(g.Others.(neighbours), g.Name)
	must(t, cgroup.Dir(g.Cgroup).Remove())
	must(t, m.Release(context.Background(), g))
}

func serves(t *testing.T, address string) bool {
	t.Helper()
	c, err := net.DialTimeout("tcp4", address, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func address(m Mode) string {
	for _, row := range modes {
		if row.mode == m {
			return row.address
		}
	}
	return ""
}

func TestAttachedGuestServesAndLeavesNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode, g *Guest, p *process) {
		attach(t, m, g)
		if got := p.tell(t, "listen 0.0.0.0:8080"); got != "ok" {
			t.Errorf("it cannot listen: %s", got)
		}
		if !serves(t, address(m)) {
			t.Errorf("it is not reached at %s", address(m))
		}
		if gone, err := m.Drift(context.Background(), &Survey{}, []*Guest{g}); err != nil || len(gone) > 0 {
			t.Errorf("just attached, it lacks %v, %v", gone, err)
		}
		if err := m.Attach(context.Background(), g); m.Private() && err != nil {
			t.Errorf("attached twice: %v", err)
		}
		release(t, m, g, p)
		if serves(t, address(m)) {
			t.Errorf("somebody still answers at %s", address(m))
		}
	})
}

func TestReleaseMayBeRepeated(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode, g *Guest, p *process) {
		attach(t, m, g)
		release(t, m, g, p)
		must(t, m.Release(context.Background(), g))
	})
}

func TestReleaseOfWhatWasNeverAttached(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode, g *Guest, p *process) { release(t, m, g, p) })
}

// If a guest's notes are lost, everything its settings imply is released.
func TestReleaseByAssumedNotes(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode, g *Guest, p *process) {
		attach(t, m, g)
		*g.Notes = m.Assumed(g.Network)
		release(t, g.Notes.Mode(g.Network.Mode), g, p)
	})
}

func TestAttachStopsWhereItCannotNote(t *testing.T) {
	full := errors.New("no space left on device")
	eachMode(t, func(t *testing.T, m Mode, g *Guest, p *process) {
		var noted Notes
		for allowed := 0; ; allowed++ {
			if allowed > 5 {
				t.Fatal("it never succeeds")
			}
			renewCgroup(t, m, g)
			left := allowed
			*g.Notes, noted = FirstNotes(m), FirstNotes(m)
			g.Save = func() error {
				if left--; left < 0 {
					return full
				}
				noted = *g.Notes
				return nil
			}
			err := m.Attach(context.Background(), g)
			if err != nil && !errors.Is(err, full) {
				t.Fatal(err)
			}
			if err == nil {
				release(t, m, g, p)
				return
			}
			*g.Notes = noted // as a later vsnode would find them
			must(t, m.Release(context.Background(), g))
		}
	})
}

// A vsnode is killed while it attaches, later each time, until one completes. Its
// successor knows only what it noted by then.
func TestAttachIsKilled(t *testing.T) {
	eachMode(t, func(t *testing.T, m Mode, g *Guest, p *process) {
		dir := t.TempDir()
		before := kernelState(t)
		for delay := time.Duration(0); ; delay += 2 * time.Millisecond {
			if delay > 5*time.Second {
				t.Fatal("it never gets through")
			}
			renewCgroup(t, m, g)
			notes := filepath.Join(dir, fmt.Sprint(delay))
			must(t, writeNotes(notes, FirstNotes(m)))
			cmd := exec.Command("/proc/self/exe", string(g.Network.Mode), g.Cgroup, p.netns.Name(), notes)
			cmd.Env = append(os.Environ(), roleVar+"="+attacher)
			cmd.Stderr = os.Stderr
			must(t, cmd.Start())
			kill := time.AfterFunc(delay, func() { cmd.Process.Kill() })
			err := cmd.Wait()
			kill.Stop()
			b, rerr := os.ReadFile(notes)
			must(t, rerr)
			must(t, json.Unmarshal(b, g.Notes))
			if err == nil {
				break
			}
			must(t, m.Release(context.Background(), g))
			if after := kernelState(t); after != before {
				t.Fatalf("killed after %s, there was\n%s\nand is\n%s", delay, before, after)
			}
		}
		release(t, m, g, p)
	})
}

// beAttacher is told a mode, the paths of a guest's cgroup and network namespace, and
// the file for its notes.
func beAttacher(args []string) error {
	for _, row := range modes {
		if string(row.network.Mode) != args[0] {
			continue
		}
		netns, err := os.Open(args[2])
		if err != nil {
			return err
		}
		notes := FirstNotes(row.mode)
		return row.mode.Attach(context.Background(), &Guest{
			Guest:  api.Guest{Name: "www", Context: 666, Network: row.network},
			Cgroup: args[1], Netns: netns, Notes: &notes, Others: neighbours{},
			Save: func() error { return writeNotes(args[3], notes) },
		})
	}
	return fmt.Errorf("no mode %q", args[0])
}

func writeNotes(path string, n Notes) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path+".new", b, 0o600), os.Rename(path+".new", path))
}

// The one thing that every mode can change while the guest runs is access to the
// metadata service.
func TestUpdateTakesEffectWhileTheGuestRuns(t *testing.T) {
	ctx := context.Background()
	eachMode(t, func(t *testing.T, m Mode, g *Guest, p *process) {
		attach(t, m, g)
		for _, allowed := range []bool{false, true, false} {
			g.Network.Metadata = allowed
			must(t, m.Update(ctx, g))
			g.Others.(neighbours)[g.Name] = g.Guest
			must(t, Publish(ctx, g))
			if got := p.tell(t, "dial "+metadataService+":80"); (got == "ok") != allowed {
				t.Errorf("allowed %t: %s", allowed, got)
			}
		}
		release(t, m, g, p)
	})
}

func TestDriftIsSeenAndRepaired(t *testing.T) {
	ctx := context.Background()
	eachMode(t, func(t *testing.T, m Mode, g *Guest, p *process) {
		attach(t, m, g)
		if got := p.tell(t, "listen 0.0.0.0:8080"); got != "ok" {
			t.Fatal(got)
		}
		for _, row := range modes {
			if row.mode != m {
				continue
			}
			for want, take := range row.take {
				take(t, g)
				gone, err := m.Drift(ctx, &Survey{}, []*Guest{g})
				if text := strings.Join(gone[g.Name], "; "); err != nil || !strings.Contains(text, want) {
					t.Errorf("drift is %q, %v; want %q", text, err, want)
				}
				must(t, m.Repair(ctx, g))
				if gone, err := m.Drift(ctx, &Survey{}, []*Guest{g}); err != nil || len(gone) > 0 {
					t.Errorf("repaired, it lacks %v, %v", gone, err)
				}
				if !serves(t, row.address) {
					t.Errorf("repaired, it is not reached at %s", row.address)
				}
			}
		}
		release(t, m, g, p)
	})
}

func TestSettingsThatAModeCannotBringAbout(t *testing.T) {
	address := prefixes("192.0.2.1/24")
	for _, row := range []struct {
		name    string
		network api.Network
		want    string
	}{
		{"shared without an address", api.Network{Mode: api.ModeShared}, "needs an address"},
		{"shared with forwards", api.Network{Mode: api.ModeShared, Addresses: address, Forwards: forwards("9090:80")}, "only a nat guest has forwards"},
		{"shared with raw sockets", api.Network{Mode: api.ModeShared, Addresses: address, Raw: true}, "raw and packet sockets"},
		{"own without a device", api.Network{Mode: api.ModeOwn, Addresses: address}, "needs the device"},
		{"own with ports", api.Network{Mode: api.ModeOwn, Addresses: address, Dev: "eth0", Ports: ports("80")}, "has all their ports"},
		{"nat with addresses", api.Network{Mode: api.ModeNAT, Addresses: address}, "has forwards, not addresses and ports"},
	} {
		t.Run(row.name, func(t *testing.T) {
			m, err := Of(row.network.Mode)
			must(t, err)
			if err := m.Validate(row.network); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one of %q", err, row.want)
			}
		})
	}
	if _, err := Of("bridge"); err == nil || !strings.Contains(err.Error(), "want shared, own or nat") {
		t.Errorf("error %v", err)
	}
}
