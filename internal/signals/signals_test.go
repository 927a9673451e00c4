package signals

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSignalsAreDelivered: each to those that asked for it, whatever thread it comes to and
// whatever Go does there.
func TestSignalsAreDelivered(t *testing.T) {
	var first, both atomic.Int64
	if err := Notify(func(unix.Signal) { first.Add(1) }, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := Notify(func(s unix.Signal) { both.Add(int64(s)) }, unix.SIGUSR1, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	defer close(over)
	for range 2 * runtime.NumCPU() {
		go func() {
			for kept := [][]byte{}; ; kept = append(kept, make([]byte, 1<<10)) {
				select {
				case <-over:
					return
				default:
				}
				if len(kept) == 1000 {
					kept = nil
					runtime.GC()
				}
			}
		}()
	}
	const each = 100
	await := func(what string, got *atomic.Int64, want int64) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); got.Load() < want; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d, want %d", what, got.Load(), want)
			}
			time.Sleep(100 * time.Microsecond)
		}
		if got.Load() != want {
			t.Errorf("%s: %d, want %d", what, got.Load(), want)
		}
	}
	sum := int64(0)
	for i := range int64(each) {
		for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGTERM} {
			if err := unix.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			sum += int64(sig)
			await("what both receive", &both, sum)
		}
		await("what the first receives", &first, i+1)
	}
}
