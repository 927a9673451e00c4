package guest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux/killtest"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/hook"
	"github.com/vsfleet/vsfleet/node/probe"
)

// The tests of life run on a host of their own: the test binary again, in new
// network, mount and cgroup namespaces, with an eth0 that has 198.51.100.1/24.
const (
	onHost = "VSFLEET_TEST_HOST"
	asNode = "VSFLEET_TEST_NODE" // "start NAME DIR": be a vsnode that can be killed
	// execLine is for a shell in the guest, with "exec NAME DIR".
	execLine = "VSFLEET_TEST_EXEC"
	execTty  = "VSFLEET_TEST_TTY" // the number of a Tty
)

var hostAddress = netip.MustParsePrefix("198.51.100.1/24")

func TestLifeOfAGuest(t *testing.T) {
	for _, row := range []struct {
		mode    api.Mode
		address string // where its port 8080 is reached
	}{
		{api.ModeShared, "198.51.100.1:8080"},
		{api.ModeOwn, "198.51.100.77:8080"},
		{api.ModeNAT, "198.51.100.1:9090"},
	} {
		t.Run(string(row.mode), func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			before := traces(t)
			g := inMode(row.mode, "life-"+string(row.mode), 100, "httpd", "-f", "-p", "8080", "-h", "/etc")
			must(t, h.Create(ctx, g))
			if err := h.Create(ctx, g); err == nil || !strings.Contains(err.Error(), "there already") {
				t.Errorf("created twice: %v", err)
			}
			if st, err := h.State(g.Name); err != nil || st.Status != api.Stopped {
				t.Errorf("state %+v, %v", st, err)
			}
			must(t, h.Start(ctx, g.Name, Options{}))
			if err := h.Start(ctx, g.Name, Options{}); !errors.Is(err, ErrRunning) {
				t.Errorf("started twice: %v", err)
			}
			st, err := h.State(g.Name)
			if err != nil || st.Status != api.Running || st.Processes != 1 || st.InitPID == 0 || st.Started.IsZero() {
				t.Errorf("state %+v, %v", st, err)
			}
			if got := fetch(t, row.address); !strings.Contains(got, "root:x:0:0") {
				t.Errorf("from %s came %q", row.address, got)
			}
			if got, code := run(t, h, g.Name, "hostname"); got != g.Name || code != 0 {
				t.Errorf("hostname %q, exit %d", got, code)
			}
			if got, _ := run(t, h, g.Name, "cat", "/etc/hosts"); !strings.Contains(got, g.Name) {
				t.Errorf("/etc/hosts does not know the guest: %q", got)
			}
			if outcome, err := h.Stop(ctx, g.Name); err != nil || outcome != api.Changed {
				t.Errorf("stop: %v, %v", outcome, err)
			}
			if outcome, err := h.Stop(ctx, g.Name); err != nil || outcome != api.Unchanged {
				t.Errorf("stopped twice: %v, %v", outcome, err)
			}
			if _, err := h.Exec(context.Background(), g.Name, Program{Argv: []string{"true"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}); !errors.Is(err, ErrNotRunning) {
				t.Errorf("entered a stopped guest: %v", err)
			}
			must(t, h.Delete(ctx, g.Name))
			if err := h.Delete(ctx, g.Name); !errors.Is(err, ErrNoGuest) {
				t.Errorf("deleted twice: %v", err)
			}
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

func TestGuestThatEndsByItselfIsCleanedUp(t *testing.T) {
	ctx := context.Background()
	for _, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			before := traces(t)
			g := inMode(mode, "short-"+string(mode), 101, "true")
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			_, cg, err := h.cgroup(g.Name)
			must(t, err)
			must(t, cg.WaitEmpty(ctx))
			must(t, h.Sweep(ctx))
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

func TestFailedStartIsUndone(t *testing.T) {
	ctx := context.Background()
	for _, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			g := inMode(mode, "fails-"+string(mode), 102, "/bin/nosuch")
			must(t, h.Create(ctx, g))
			before := traces(t)
			err := h.Start(ctx, g.Name, Options{})
			if err == nil || !strings.Contains(err.Error(), "no such file") {
				t.Errorf("error %v", err)
			}
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

// If the host lacks idmapped mounts where guests' data is, the error of the start names
// the row of check.
func TestFailedStartNamesWhatTheHostLacks(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	must(t, os.MkdirAll(h.DataDir, 0o755))
	must(t, unix.Mount("ramfs", h.DataDir, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(h.DataDir, unix.MNT_DETACH)) })
	g := inMode(api.ModeNAT, "lacking", 103, "/bin/sleep", "1000")
	must(t, h.Create(ctx, g))
	before := traces(t)
	err := h.Start(ctx, g.Name, Options{})
	const want = "; this host lacks idmapped mounts: idmap "
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "put /var/lib/vservers on ext4") || !errors.Is(err, probe.ErrMissing) {
		t.Errorf("error %v, want %q in it", err, want)
	}
	if after := traces(t); after != before {
		t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
	}
	must(t, h.Delete(ctx, g.Name))
}

// A vsnode is killed before one of the calls by which it changes something, of a create, a
// start, a stop and a delete; repeating the command finishes it, and a delete leaves nothing.
func TestKilledAnywhereAndCalledAgain(t *testing.T) {
	ctx := context.Background()
	for _, row := range []struct {
		verb    string
		prepare func(h *Host, g api.Guest) error // for the verb to have all to do
		again   func(h *Host, g api.Guest) error
		done    error // of again, if the verb was done before it was killed
	}{
		{"create", func(h *Host, g api.Guest) error { return errors.Join(h.Create(ctx, g), h.Delete(ctx, g.Name)) }, create, ErrExists},
		{"start", create, func(h *Host, g api.Guest) error { return h.Start(ctx, g.Name, Options{}) }, ErrRunning},
		{"stop", func(h *Host, g api.Guest) error { return errors.Join(create(h, g), h.Start(ctx, g.Name, Options{})) },
			func(h *Host, g api.Guest) error { _, err := h.Stop(ctx, g.Name); return err }, nil},
		{"delete", func(h *Host, g api.Guest) error { return errors.Join(create(h, g), h.Start(ctx, g.Name, Options{})) },
			func(h *Host, g api.Guest) error { return h.Delete(ctx, g.Name) }, ErrNoGuest},
	} {
		for _, mode := range []api.Mode{api.ModeOwn, api.ModeNAT} {
			t.Run(row.verb+" "+string(mode), func(t *testing.T) {
				h := host(t)
				before := traces(t)
				g := toKill(mode)
				must(t, create(h, g))
				must(t, h.Start(ctx, g.Name, Options{})) // the BPF programs are loaded from here on
				must(t, h.Delete(ctx, g.Name))
				files := lying(t, h)
				must(t, row.prepare(h, g))
				whole := killBefore(t, 0, row.verb, g.Name, filepath.Dir(h.DataDir))
				if err := row.again(h, g); !errors.Is(err, row.done) || whole.Changes < 10 {
					t.Fatalf("%s was not done, with %d changes: %v", row.verb, whole.Changes, err)
				}
				must(t, shutDown(h))
				killed := 0
				for _, k := range killtest.Steps(t, whole.Changes, 20) {
					must(t, row.prepare(h, g))
					if killBefore(t, k, row.verb, g.Name, filepath.Dir(h.DataDir)).Killed {
						killed++
					}
					if err := row.again(h, g); err != nil && !errors.Is(err, row.done) {
						t.Fatalf("killed before change %d, then %s again: %v", k, row.verb, err)
					}
					if on, err := h.Running(g.Name); err != nil && row.verb != "delete" || on != (row.verb == "start") {
						t.Fatalf("killed before change %d: running is %t, %v", k, on, err)
					}
					must(t, shutDown(h))
					if left := lying(t, h); !slices.Equal(left, files) {
						t.Fatalf("killed before change %d: left are %q, before %q", k, left, files)
					}
				}
				if killed == 0 {
					t.Error("it was never killed")
				}
				if after := traces(t); after != before {
					t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
				}
			})
		}
	}
}

// toKill is the guest in the middle of which vsnode is killed.
func toKill(mode api.Mode) api.Guest {
	return inMode(mode, "killed-"+string(mode), 105, "sleep", "1000")
}

func create(h *Host, g api.Guest) error { return h.Create(context.Background(), g) }

// killBefore runs a vsnode of its own and kills it before its k-th change; 0: never.
func killBefore(t *testing.T, k int, verb, name, dir string) killtest.Result {
	t.Helper()
	env := append(os.Environ(), asNode+"="+strings.Join([]string{verb, name, dir}, " "))
	return killtest.Run(t, k, env, "/proc/self/exe")
}

func beNode(call []string) error {
	h := hostAt(call[2])
	h.Held = hook.Held()
	if call[0] == "start" {
		return h.Start(context.Background(), call[1], Options{})
	}
	switch call[0] {
	case "create":
		return h.Create(context.Background(), toKill(api.Mode(strings.TrimPrefix(call[1], "killed-"))))
	case "delete":
		return h.Delete(context.Background(), call[1])
	case "change":
		return changeAll(h, call[1])
	}
	if call[0] == "revert" {
		_, err := h.Revert(context.Background(), call[1], "run-1", Options{})
		return err
	}
	if call[0] == "adopt" {
		_, err := h.Adopt(context.Background(), call[1], Adoption{Agree: allow})
		return err
	}
	if call[0] == "exec" {
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		tty, _ := strconv.Atoi(os.Getenv(execTty))
		code, err := h.Run(context.Background(), call[1], Program{Argv: []string{"sh", "-c", os.Getenv(execLine)}, Tty: Tty(tty), Signals: signals})
		if err == nil && code != 0 {
			err = fmt.Errorf("exit status %d", code)
		}
		return err
	}
	_, err := h.Stop(context.Background(), call[1])
	return err
}

func TestSuexecRunsAsTheUser(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "users", 106, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	u, err := h.User(g.Name, "www")
	must(t, err)
	if got, _ := runAs(t, h, g.Name, u, "id", "-u"); got != "33" {
		t.Errorf("id is %q", got)
	}
}

// The first process of each is forked while the others hold locks and ends of pipes:
// its copies of these must not outlive its vsnode's.
func TestManyStartAtOnce(t *testing.T) {
	for _, mode := range []api.Mode{api.ModeShared, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var group errgroup.Group
			for i := range 8 {
				g := inMode(mode, fmt.Sprintf("many-%s-%d", mode, i), 120+i, "sleep", "1000")
				g.Network.Ports, g.Network.Forwards = nil, nil
				must(t, h.Create(ctx, g))
				group.Go(func() error {
					for range 3 {
						if err := h.Start(ctx, g.Name, Options{}); err != nil {
							return err
						}
						if _, err := h.Stop(ctx, g.Name); err != nil {
							return err
						}
					}
					return nil
				})
			}
			must(t, group.Wait())
		})
	}
}
