package lab

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestKilledAnywhere kills Up and Down at many moments: Down then leaves nothing, and
// Up works.
func TestKilledAnywhere(t *testing.T) {
	dir := labDir(t)
	const name = "killed"
	o := Options{Dir: dir, Name: name, Log: func(s string) { t.Log(s) }}
	t.Cleanup(func() {
		if err := Down(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	before := takeSnapshot(t)
	const step = 8 * time.Millisecond
	survived := 0
	for after := step; survived < 2; after += step {
		if after > 5*time.Second {
			t.Fatal("Up never ends")
		}
		if killAfter(t, after, upCommand, dir, name, "2") {
			survived++
		}
		if err := Down(t.Context(), o); err != nil {
			t.Fatalf("Down after Up was killed after %s: %v", after, err)
		}
		before.compare(t, name)
		if t.Failed() {
			t.Fatalf("Up was killed after %s", after)
		}
	}
	survived = 0
	for after := step; survived < 2; after += step {
		if after > 5*time.Second {
			t.Fatal("Down never ends")
		}
		if _, err := Up(t.Context(), Options{Dir: dir, Name: name, Hosts: 2}); err != nil {
			t.Fatalf("Up after Down was killed: %v", err)
		}
		if killAfter(t, after, downCmd, dir, name) {
			survived++
		}
		// Every second time Up itself has to cope with what is left.
		if int(after/step)%2 == 0 {
			if err := Down(t.Context(), o); err != nil {
				t.Fatalf("Down after Down was killed after %s: %v", after, err)
			}
			before.compare(t, name)
		}
		if t.Failed() {
			t.Fatalf("Down was killed after %s", after)
		}
	}
}

// killAfter reports whether the program ended before it was killed.
func killAfter(t *testing.T, after time.Duration, args ...string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	out, err := exec.CommandContext(ctx, "/proc/self/exe", args...).CombinedOutput()
	if err == nil {
		return true
	}
	if ctx.Err() == nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return false
}

func TestUpCanBeCancelled(t *testing.T) {
	o := Options{Dir: labDir(t), Name: "cancel", Hosts: 2}
	before := takeSnapshot(t)
	for after := 10 * time.Millisecond; after < 150*time.Millisecond; after += 20 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := Up(ctx, o)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("after %s: %v", after, err)
		}
	}
	if err := Down(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	before.compare(t, o.Name)
}
