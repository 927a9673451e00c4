package procctx

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
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
