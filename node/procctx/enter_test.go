package procctx

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAFrozenGuestHoldsNobody: a guest freezes the cgroup of its init, in which
// whoever enters is born.
func TestAFrozenGuestHoldsNobody(t *testing.T) {
	usual := enterTimeout
	defer func() { enterTimeout = usual }()
	enterTimeout = 300 * time.Millisecond
	sp, cg := guest(t, 682, "sleep", "1000")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	if out, code := output(t, p, sp, cg, "cd /sys/fs/cgroup && busybox mkdir all && echo 1 >all/cgroup.procs && echo 1 >all/cgroup.freeze"); code != 0 {
		t.Fatal(out)
	}
	ended, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	for what, ctx := range map[string]context.Context{"its deadline": context.Background(), "whoever gives up": ended} {
		begun := time.Now()
		_, err := Exec(ctx, Command{InitPID: p.PID, Cgroup: cg, Scope: sp.Scope, Caps: sp.Caps, Argv: []string{"true"}, Env: sp.Env,
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			t.Errorf("by %s: %v", what, err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("by %s: it took %v", what, took)
		}
		if pids, err := cg.PIDs(); err != nil || len(pids) != 1 {
			t.Errorf("by %s: left are %v, %v", what, pids, err)
		}
	}
}

// TestThreadsComeBack: the thread that enters makes its child in the guest's pid namespace.
// A thread that stayed behind could make no other: Go would end the process at some time
// later.
func TestThreadsComeBack(t *testing.T) {
	sp, cg := guest(t, 683, "sleep", "1000")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("all at once", func(t *testing.T) {
		for i := range 8 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				for range 4 {
					if out, code := output(t, p, sp, cg, "test $$ != 1 && test -d /proc/$$"); code != 0 {
						t.Errorf("exit status %d: %s", code, out)
					}
				}
			})
		}
	})
	// One that no command can enter: the descriptor is of no process.
	s := newScript()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s.pidns = &joined{int(null.Fd()), -1}
	if pid, err := s.fork(&cloneArgs{exitSignal: uint64(unix.SIGCHLD)}); !errors.Is(err, unix.EINVAL) || pid != 0 {
		t.Errorf("process %d, %v", pid, err)
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/pid_for_children")
	if err != nil || len(threads) < 2 {
		t.Fatal(threads, err)
	}
	for _, thread := range threads {
		if ns, err := os.Readlink(thread); err == nil && ns != own {
			t.Errorf("%s is %s, and ours %s", thread, ns, own)
		}
	}
}
