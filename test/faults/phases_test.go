package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/test/fakesshd"
	"github.com/vsfleet/vsfleet/test/faultproxy"
)

// commands runs vsnode, and other commands as a shell does that knows none.
func commands(s *fakesshd.Server, command string, ch ssh.Channel) uint32 {
	if strings.Contains(command, "vsfleet-run-1") {
		fmt.Fprintf(ch, "\x00vsfleet-run-1 4242\n")
		return 0
	}
	return s.Vsnode(command, ch)
}

// TestNoFaultHangsARun has one faulty host between two good ones: in every phase, every
// fault, by every kind of command.
func TestNoFaultHangsARun(t *testing.T) {
	// Short for those that hang, long enough for those that are well on a busy machine.
	limits := []string{"--connect-timeout", "1500ms", "--timeout", "5s"}
	verbs := map[string][]string{
		"ping":  {"ping"},
		"apply": {"apply"},
		"run":   {"run", "--", "true"},
	}
	check := func(t *testing.T, bad host, verb string, more ...string) result {
		t.Helper()
		_, first := fake(t, fakesshd.Options{Exec: commands})
		_, last := fake(t, fakesshd.Options{Exec: commands})
		r := with(t, map[string]host{"a": first, "bad": bad, "z": last}, slices.Concat(limits, more, verbs[verb])...)
		for _, name := range []string{"a", "z"} {
			if good := r.records[name]; good.Status != "ok" {
				t.Errorf("%s, which is well: %+v", name, good)
			}
		}
		got := r.records["bad"]
		if got.Status != "ok" && (got.Class == "" || got.Class == "host" || got.Error == "") {
			t.Errorf("it failed without a class or a reason: %+v", got)
		}
		if want := map[string]int{"ok": 0, "unreachable": 4, "failed": 2}[got.Status]; r.exit != want {
			t.Errorf("exit status %d for %+v", r.exit, got)
		}
		return r
	}
	for _, phase := range fakesshd.Phases() {
		for _, fault := range []fakesshd.Fault{fakesshd.Hang, fakesshd.Close, fakesshd.Reset} {
			for verb := range verbs {
				if verb == "run" && phase == fakesshd.Request {
					continue // it makes none
				}
				t.Run(fmt.Sprintf("%s: %s when %s", verb, fault, phase), func(t *testing.T) {
					t.Parallel()
					_, bad := fake(t, fakesshd.Options{At: phase, Fault: fault, Exec: commands})
					if r := check(t, bad, verb); r.records["bad"].Status == "ok" {
						t.Errorf("the fault had no effect: %+v", r.records)
					}
				})
			}
		}
	}
	// What happens once is not the end of a host, unless it may have begun to work.
	for _, phase := range []fakesshd.Phase{fakesshd.Connected, fakesshd.Handshake} {
		for _, fault := range []fakesshd.Fault{fakesshd.Close, fakesshd.Reset} {
			t.Run(fmt.Sprintf("%s once when %s", fault, phase), func(t *testing.T) {
				t.Parallel()
				_, bad := fake(t, fakesshd.Options{At: phase, Fault: fault, First: 1, Exec: commands})
				if r := check(t, bad, "ping"); r.records["bad"].Status != "ok" {
					t.Errorf("it was lost: %+v", r.records["bad"])
				}
			})
		}
	}
	// The same by a network: at places that no phase names.
	damages := []faultproxy.Damage{faultproxy.Stall, faultproxy.Reset, faultproxy.Close, faultproxy.HalfOpen, faultproxy.Alter}
	for i, after := range []int64{0, 20, 700, 1400, 1900, 2100, 2300} {
		damage := damages[i%len(damages)]
		for _, damage := range []faultproxy.Damage{damage, damages[(i+2)%len(damages)]} {
			t.Run(fmt.Sprintf("%s after %d bytes", damage, after), func(t *testing.T) {
				t.Parallel()
				check(t, behind(t, faultproxy.Faults{Damage: damage, After: after}), "ping")
			})
		}
	}
	t.Run("a black hole", func(t *testing.T) {
		t.Parallel()
		if r := check(t, behind(t, faultproxy.Faults{BlackHole: true}), "ping"); r.exit != 4 {
			t.Errorf("exit status %d", r.exit)
		}
	})
	t.Run("a slow link is not a fault", func(t *testing.T) {
		t.Parallel()
		if r := check(t, behind(t, faultproxy.Faults{Delay: 30 * time.Millisecond, Bandwidth: 64 << 10}), "ping", "--connect-timeout", "20s", "--timeout", "30s"); r.exit != 0 {
			t.Errorf("exit status %d: %+v", r.exit, r.records["bad"])
		}
	})
}

// TestJumpHosts has a jump host that fails: each target has its error, which names
// the jump host, and hosts that are reached otherwise are well.
func TestJumpHosts(t *testing.T) {
	for _, row := range []struct {
		name  string
		gate  fakesshd.Options
		class string
		says  string
	}{
		{"a jump host that lets nobody in", fakesshd.Options{AuthorizedOther: true}, "auth", "connect to jump host gate (127.0.0.1:"},
		{"a jump host with another key", fakesshd.Options{WrongHostKey: true}, "hostkey", "its host key has CHANGED"},
		{"a jump host that hangs", fakesshd.Options{At: fakesshd.Authenticate, Fault: fakesshd.Hang}, "timeout", "no answer within 1.5s"},
		{"a jump host that drops all", fakesshd.Options{At: fakesshd.Connected, Fault: fakesshd.Close}, "throttled", "MaxStartups"},
		{"a jump host that is well", fakesshd.Options{Forward: true}, "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			gate, _ := fake(t, row.gate)
			s, _ := fake(t, fakesshd.Options{Listen: "0.0.0.0:0"})
			_, direct := fake(t, fakesshd.Options{})
			hosts := map[string]host{"direct": direct}
			for i := range 20 {
				hosts[fmt.Sprintf("inner%02d", i)] = host{
					fmt.Sprintf("{address: 127.1.0.%d, port: %d, identity: %s, jump: gate}", i+1, s.Port, s.Identity),
					fmt.Sprintf("[127.1.0.%d]:%d %s", i+1, s.Port, ssh.MarshalAuthorizedKey(s.HostKey.PublicKey())),
				}
			}
			hosts["gate"] = hostAt(gate, gate.Port)
			r := with(t, hosts, "ping", "-l", "!gate", "--forks", "4", "--connect-timeout", "1500ms", "--timeout", "20s")
			if r.records["direct"].Status != "ok" {
				t.Errorf("the host without a jump host: %+v", r.records["direct"])
			}
			for i := range 20 {
				got := r.records[fmt.Sprintf("inner%02d", i)]
				if got.Class != row.class || !strings.Contains(got.Error, row.says) {
					t.Errorf("class %q, error %q; want %q, %q", got.Class, got.Error, row.class, row.says)
				}
			}
			if logins := gate.Logins.Load(); logins > 1 || row.class == "" && logins != 1 {
				t.Errorf("%d logins at the jump host", logins)
			}
			// Five waves of four hosts: one attempt serves them all.
			if row.class != "" && row.class != "throttled" && gate.Connections.Load() != 1 {
				t.Errorf("%d connections to a jump host that fails", gate.Connections.Load())
			}
		})
	}
}
