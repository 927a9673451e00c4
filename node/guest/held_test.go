package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// frozen is an init that freezes itself, and every program that enters, in a cgroup of
// its own.
const frozen = `trap 'echo saved; exit' TERM
mkdir /sys/fs/cgroup/x
echo 1 >/sys/fs/cgroup/x/cgroup.procs
echo frozen
echo 1 >/sys/fs/cgroup/x/cgroup.freeze
while :; do sleep 0.01; done`

// stopping is an init that stops every process that it did not start.
const stopping = `trap 'exit' TERM
echo stopping
while :; do for p in /proc/[2-9]* /proc/1?*; do busybox kill -STOP ${p#/proc/} 2>/dev/null; done; done`

func TestGuestCannotHoldUpWhoEnters(t *testing.T) {
	for _, row := range []struct{ name, script string }{{"a frozen guest", frozen}, {"a guest that stops who enters", stopping}} {
		t.Run(row.name, func(t *testing.T) {
			h := host(t)
			g := inMode(api.ModeShared, "holding", 118, "sh", "-c", strings.ReplaceAll(row.script, "\n", "; "))
			must(t, h.Create(context.Background(), g))
			must(t, h.Start(context.Background(), g.Name, Options{}))
			eventually(t, func() string { return "a log of " + row.name }, func() bool { return logOf(t, h, g.Name, 9) != "" })
			_, cg, err := h.cgroup(g.Name)
			must(t, err)
			eventually(t, func() string { return "a frozen cgroup" }, func() bool {
				b, err := os.ReadFile(string(cg) + "/x/cgroup.events")
				return err != nil || bytes.Contains(b, []byte("frozen 1"))
			})
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			must(t, err)
			defer null.Close()
			begun, before := time.Now(), len(zombies(t))
			for range 5 {
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				run, err := h.Exec(ctx, g.Name, Program{Argv: []string{"true"}, Stdin: null, Stdout: null, Stderr: null})
				if err == nil { // the guest was too slow, and may have stopped the program instead
					run.Signal(unix.SIGKILL)
					run.Wait()
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("exec: %v", err)
				} else if row.script == frozen && len(zombies(t)) > before {
					t.Errorf("left over: %v", zombies(t))
				}
				cancel()
			}
			_, err = h.Stop(context.Background(), g.Name)
			must(t, err)
			if took := time.Since(begun); took > 15*time.Second {
				t.Errorf("it took %s", took)
			}
			if row.script == frozen && !strings.Contains(logOf(t, h, g.Name, 9), "saved") {
				t.Errorf("the guest was not asked to end: %q", logOf(t, h, g.Name, 9))
			}
		})
	}
}

// zombies returns the children of this process that have not been waited for.
func zombies(t *testing.T) (list []string) {
	t.Helper()
	children, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	for _, c := range children {
		b, err := os.ReadFile(c)
		if err != nil {
			continue
		}
		for _, pid := range strings.Fields(string(b)) {
			if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && bytes.Contains(stat, []byte(") Z ")) {
				list = append(list, pid)
			}
		}
	}
	return list
}

func TestStopAsksAllProcesses(t *testing.T) {
	for _, row := range []struct {
		name   string
		script string
		saved  int // number of processes that are asked to end and do so in order
	}{
		{"that init left behind", `i=0; while [ $i -lt 20 ]; do sh -c 'trap "echo saved; exit" TERM; echo up; while :; do sleep 0.01; done' & i=$((i+1)); done; wait`, 20},
		{"in a cgroup below", `mkdir -p /sys/fs/cgroup/a/b; sh -c 'echo $$ >/sys/fs/cgroup/a/b/cgroup.procs; trap "echo saved; exit" TERM; echo up; while :; do sleep 0.01; done' & wait`, 1},
		{"that are stopped", `sh -c 'trap "echo saved; exit" TERM; echo up; kill -STOP $$; while :; do sleep 0.01; done' & wait`, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			g := inMode(api.ModeShared, "asked", 119, "sh", "-c", row.script)
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			eventually(t, func() string { return "all are up" }, func() bool { return strings.Count(logOf(t, h, g.Name, 99), "up\n") == row.saved })
			begun := time.Now()
			_, err := h.Stop(ctx, g.Name)
			must(t, err)
			if got := strings.Count(logOf(t, h, g.Name, 99), "saved\n"); got != row.saved || time.Since(begun) > 5*time.Second {
				t.Errorf("%d of %d ended in order, after %s", got, row.saved, time.Since(begun))
			}
		})
	}
}

// A guest whose processes ignore what asks them to end, or catch it and go on, is ended
// all the same, though it makes new ones all the time.
func TestStopEndsWhoIgnoresIt(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	before := traces(t)
	g := inMode(api.ModeNAT, "deaf", 123, "sh", "-c", `trap "" INT TERM HUP
for way in "" : "sh -c : &"; do sh -c "trap \"$way\" TERM; echo up; while :; do sleep 0.05 & wait; done" & done
while :; do sleep 1000; done`)
	g.Init.Command[2] = strings.ReplaceAll(g.Init.Command[2], "\n", "; ")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	eventually(t, func() string { return "all are up: " + logOf(t, h, g.Name, 9) }, func() bool { return strings.Count(logOf(t, h, g.Name, 9), "up\n") == 3 })
	begun := time.Now()
	_, err := h.Stop(ctx, g.Name)
	must(t, err)
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if on, err := h.Running(g.Name); err != nil || on {
		t.Errorf("running %t, %v", on, err)
	}
	must(t, h.Delete(ctx, g.Name))
	if after := traces(t); after != before {
		t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
	}
}

func TestWaitForALockCanBeBrokenOff(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeNAT, "locked", 121, "sleep", "1000")
	must(t, h.Create(context.Background(), g))
	lock, err := h.lock(t.Context(), g.Name)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- h.Start(ctx, g.Name, Options{}) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "another vsnode") {
		t.Errorf("error %v", err)
	}
	lock.Unlock()
	must(t, h.Start(context.Background(), g.Name, Options{})) // the abandoned wait holds no lock
}

// In a pipeline only some of the streams are the administrator's terminal; a guest must
// not get those either.
func TestNoProgramOfAGuestHoldsTheTerminal(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "pipeline", 122, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	for _, row := range []struct {
		name       string
		terminal   [3]bool // which streams are the terminal
		command    string
		out, shown string // output through the pipe, and on the terminal
	}{
		{"vserver … | less", [3]bool{true, false, true}, "cat; echo to stderr >&2", "typed\n", "to stderr\r\n"},
		{"… | vserver …", [3]bool{false, true, true}, "cat; echo to stderr >&2", "", "piped\r\nto stderr\r\n"},
		{"vserver … >file 2>&1", [3]bool{true, false, false}, "cat; echo to stderr >&2", "typed\nto stderr\n", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			ours, theirs := hostTerminal(t)
			read, write, err := os.Pipe()
			must(t, err)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), asNode+"=exec "+g.Name+" "+filepath.Dir(h.DataDir), execLine+"=for f in 0 1 2; do [ -t $f ] && echo holds $f; done; "+row.command)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
			cmd.ExtraFiles = []*os.File{theirs}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("piped\n"), write, write
			if row.terminal[0] {
				cmd.Stdin = theirs
			}
			if row.terminal[1] {
				cmd.Stdout = theirs
			}
			if row.terminal[2] {
				cmd.Stderr = theirs
			}
			must(t, cmd.Start())
			write.Close()
			theirs.Close()
			if row.terminal[0] {
				_, err := ours.WriteString("typed\n\x04")
				must(t, err)
			}
			out, err := io.ReadAll(read)
			must(t, err)
			must(t, cmd.Wait())
			shown, _ := io.ReadAll(ours) // EIO marks the end
			got := strings.TrimPrefix(string(shown), "typed\r\n")
			got = strings.ReplaceAll(got, "^D\b\b", "")
			if string(out) != row.out || got != row.shown {
				t.Errorf("by the pipe %q, on the terminal %q, want %q and %q", out, got, row.out, row.shown)
			}
		})
	}
}

// hostTerminal opens a terminal of the host.
func hostTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { ours.Close() })
	must(t, unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	must(t, err)
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return ours, theirs
}
