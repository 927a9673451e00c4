package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProcessesAreFound(t *testing.T) {
	c := testGuest(t)
	below := start(t, mkdir(t, c, "a/b"), 0, sleeps)
	own := start(t, c, 0, sleeps)
	if pids, err := c.PIDs(); err != nil || !slices.Equal(pids, []int{own, below}) {
		t.Errorf("%v, %v; want %d and %d", pids, err, own, below)
	}
	if full, err := c.Populated(); err != nil || !full {
		t.Errorf("populated: %v, %v", full, err)
	}
	if pid, err := c.Init(); err != nil || pid != 0 {
		t.Errorf("process 1 is %d, %v, want none", pid, err)
	}
	first := start(t, mkdir(t, c, "a"), unix.CLONE_NEWPID, sleeps)
	if pid, err := c.Init(); err != nil || pid != first {
		t.Errorf("process 1 is %d, %v, want %d", pid, err, first)
	}
	if runs, err := c.WaitExec(context.Background()); err != nil || !runs {
		t.Errorf("runs: %v, %v", runs, err)
	}
}

func TestOf(t *testing.T) {
	mount := testMount(t) // right below the real one: its path is what the kernel says
	for _, row := range []struct {
		name, cgroup, born string
		ok                 bool
	}{
		{"in it", "a", "a", true},
		{"below", "b", "b/x/y", true},
		{"above", "c/x", "c", false},
		{"in one whose name begins the same", "d", "dd", false},
		{"in the one beside it", "e", "f", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, born := mkdir(t, Dir(mount), row.cgroup), mkdir(t, Dir(mount), row.born)
			pid := start(t, born, 0, sleeps)
			got, err := c.Of(pid)
			switch {
			case row.ok && (err != nil || got != born):
				t.Errorf("%s, %v; want %s", got, err, born)
			case !row.ok && (err == nil || !strings.Contains(err.Error(), "not in "+string(c))):
				t.Errorf("%s, %v; want it refused", got, err)
			}
		})
	}
	ended := exec.Command("true")
	must(t, ended.Run())
	var gone *fs.PathError
	if _, err := Dir(mount).Of(ended.Process.Pid); !errors.As(err, &gone) {
		t.Errorf("of a process that has ended: %v", err)
	}
}
