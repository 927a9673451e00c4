package guest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// TestNobodyEntersAGuestWhoseInitLeftItsNetwork: how a program that enters is confined
// follows from how the guest was started, not from where its process 1 is.
func TestNobodyEntersAGuestWhoseInitLeftItsNetwork(t *testing.T) {
	ctx := context.Background()
	for i, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			g := inMode(mode, "moved-"+string(mode), 120+i, "busybox", "unshare", "-n", "sleep", "1000")
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			v, err := h.look(g.Name)
			must(t, err)
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				st, err := h.readNotes(g.Name)
				must(t, err)
				net, err := netID(fmt.Sprintf("/proc/%d/ns/net", v.initPID))
				must(t, err)
				ours, err := netID("/proc/thread-self/ns/net")
				must(t, err)
				if net != ours && net != st.Net {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("process 1 stays where it is")
				}
			}
			if run, err := h.Exec(context.Background(), g.Name, Program{Argv: []string{"true"}}); err == nil || !strings.Contains(err.Error(), "has left the network") {
				if err == nil {
					run.Wait()
				}
				t.Errorf("error %v", err)
			}
		})
	}
}

// netID returns the ID of a network namespace, in the form that notes of a start have.
func netID(path string) (string, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), err
}

// TestNestingIsForThoseWhoAskForIt starts guests that try to make namespaces, and
// enters them. A program that enters gets what the running guest has, not what was
// configured since.
func TestNestingIsForThoseWhoAskForIt(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "nesting", 123, "sleep", "1000")
	for _, no := range []bool{true, false} {
		g.NoNesting = no
		if _, err := h.Configure(ctx, g); err != nil {
			must(t, h.Create(ctx, g))
		}
		c, err := h.Read(g.Name)
		must(t, err)
		if c.NoNesting != no {
			t.Errorf("read back as %v", c.NoNesting)
		}
		must(t, h.Start(ctx, g.Name, Options{}))
		for command, want := range map[string]bool{
			"-U": !no, "-n": !no, "-Un": !no, "-m": true, "-p": true, "-u": true, "-i": true,
		} {
			if out, code := run(t, h, g.Name, "busybox", "unshare", command, "true"); (code == 0) != want {
				t.Errorf("no nesting %v: unshare %s: %q, exit status %d", no, command, out, code)
			}
		}
		g.NoNesting = !no
		_, err = h.Configure(ctx, g)
		must(t, err)
		if _, code := run(t, h, g.Name, "busybox", "unshare", "-U", "true"); (code == 0) == no {
			t.Errorf("entered after a change of the configuration: exit status %d", code)
		}
		_, err = h.Stop(ctx, g.Name)
		must(t, err)
	}
}

// TestRawSocketsAreForThoseWhoAskForThem has guests in mode nat send with raw and
// packet sockets, from process 1 and from a program that enters, each under its own
// filter.
func TestRawSocketsAreForThoseWhoAskForThem(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	shared := inMode(api.ModeShared, "raw-shared", 124, "sleep", "1000")
	shared.Network.Raw = true
	if err := h.Create(ctx, shared); err == nil || !strings.Contains(err.Error(), "in the host's network") {
		t.Errorf("in mode shared: %v", err)
	}
	// busybox sends one packet to the host with each of them, and waits for the answer.
	const (
		arping     = "arping -c 1 -w 5 -I eth0 100.64.0.1"
		traceroute = "traceroute -n -m 1 -q 1 -w 5 100.64.0.1"
	)
	g := inMode(api.ModeNAT, "raw", 125, "busybox", "sh", "-c", arping+" >/sent 2>&1; echo ended $? >/status; exec sleep 1000")
	for _, raw := range []bool{true, false} {
		g.Network.Raw = raw
		if _, err := h.Configure(ctx, g); err != nil {
			must(t, h.Create(ctx, g))
		}
		must(t, h.Start(ctx, g.Name, Options{}))
		for _, command := range []string{arping, traceroute} {
			if out, code := run(t, h, g.Name, append([]string{"busybox"}, strings.Fields(command)...)...); (code == 0) != raw {
				t.Errorf("raw %v: %s: %q, exit status %d", raw, command, out, code)
			}
		}
		var out string
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if out, _ = run(t, h, g.Name, "busybox", "cat", "/status"); strings.HasPrefix(out, "ended ") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("process 1 says nothing: %q", out)
			}
		}
		if (out == "ended 0") != raw {
			t.Errorf("raw %v: process 1: %s", raw, out)
		}
		if _, code := run(t, h, g.Name, "busybox", "rm", "/status"); code != 0 {
			t.Error("rm /status")
		}
		g.Network.Raw = !raw
		_, err := h.Configure(ctx, g)
		must(t, err)
		if _, code := run(t, h, g.Name, append([]string{"busybox"}, strings.Fields(arping)...)...); (code == 0) != raw {
			t.Errorf("raw %v: entered after a change of the configuration: exit status %d", raw, code)
		}
		_, err = h.Stop(ctx, g.Name)
		must(t, err)
	}
}
