package cgroup

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// freeze freezes a cgroup and waits until it is.
func freeze(t *testing.T, c Dir) {
	t.Helper()
	write(t, c, "cgroup.freeze", "1")
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(read(t, c, "cgroup.events"), "frozen 1"); {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not freeze", c)
		}
		_, _ = unix.Poll(nil, 1)
	}
}

// busy has cgroups with processes, as guests make them.
var busy = []struct {
	name string
	make func(t *testing.T, c Dir)
}{
	{"empty", func(*testing.T, Dir) {}},
	{"one process", func(t *testing.T, c Dir) { start(t, c, 0, sleeps) }},
	{"a process 1 with others", func(t *testing.T, c Dir) { start(t, c, unix.CLONE_NEWPID, "sleep 1000 & sleep 1000 & "+sleeps) }},
	{"in cgroups below", func(t *testing.T, c Dir) {
		start(t, mkdir(t, c, "a/b"), 0, sleeps)
		start(t, mkdir(t, c, "d"), 0, sleeps)
	}},
	{"stopped", func(t *testing.T, c Dir) { must(t, unix.Kill(start(t, c, 0, sleeps), unix.SIGSTOP)) }},
	{"frozen", func(t *testing.T, c Dir) { start(t, c, 0, sleeps); freeze(t, c) }},
	{"frozen below", func(t *testing.T, c Dir) {
		start(t, c, 0, sleeps)
		below := mkdir(t, c, "a/b")
		start(t, below, 0, sleeps)
		freeze(t, below)
	}},
	{"a threaded cgroup below", func(t *testing.T, c Dir) {
		threaded := mkdir(t, c, "t")
		write(t, threaded, "cgroup.type", "threaded")
		start(t, c, 0, sleeps)
	}},
}

func TestKillAndRemove(t *testing.T) {
	for _, row := range busy {
		t.Run(row.name, func(t *testing.T) {
			c := testGuest(t)
			row.make(t, c)
			must(t, c.Kill(context.Background()))
			if pids, err := c.PIDs(); err != nil || len(pids) != 0 {
				t.Errorf("left are %v, %v", pids, err)
			}
			for range 2 {
				must(t, c.Remove())
			}
			if _, err := os.Lstat(string(c)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is there still: %v", err)
			}
		})
	}
}

func TestThawAndTerminate(t *testing.T) {
	for _, row := range busy {
		if row.name == "a process 1 with others" {
			continue // the kernel keeps SIGTERM from it
		}
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			c := testGuest(t)
			spared := start(t, c, 0, sleeps) // before: one that is born frozen says nothing
			row.make(t, c)
			must(t, c.Thaw())
			must(t, c.walk(func(dir string) error {
				b, err := os.ReadFile(dir + "/cgroup.freeze")
				if err == nil && string(b) != "0\n" {
					t.Errorf("%s is frozen still", dir)
				}
				return err
			}))
			must(t, c.Terminate(ctx, unix.SIGTERM, spared))
			if pids, err := c.PIDs(); err != nil || !slices.Equal(pids, []int{spared}) {
				t.Errorf("left are %v, %v; want %d", pids, err, spared)
			}
		})
	}
}

func TestTerminateGivesUp(t *testing.T) {
	c := testGuest(t)
	stubborn := start(t, c, 0, "trap '' TERM; "+sleeps)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	must(t, c.Terminate(ctx, unix.SIGTERM, 0))
	if pids, err := c.PIDs(); err != nil || !slices.Equal(pids, []int{stubborn}) {
		t.Errorf("left are %v, %v; want %d", pids, err, stubborn)
	}
}

func TestWaitEmptyFor(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, row := range []struct {
		name   string
		ctx    context.Context
		script string // "": no process
		d      time.Duration
		empty  bool
		err    error
	}{
		{"nobody is in it", context.Background(), "", time.Minute, true, nil},
		{"the last one ends", context.Background(), "echo up; exec sleep 0.05", time.Minute, true, nil},
		{"the last one stays", context.Background(), sleeps, 20 * time.Millisecond, false, nil},
		{"whoever waits gives up", ended, sleeps, time.Minute, false, context.Canceled},
	} {
		for kind, flags := range map[string]uintptr{"": 0, ", a process 1": unix.CLONE_NEWPID} {
			t.Run(row.name+kind, func(t *testing.T) {
				c := testGuest(t)
				if row.script != "" {
					start(t, c, flags, row.script)
				}
				empty, err := c.WaitEmptyFor(row.ctx, row.d)
				if empty != row.empty || !errors.Is(err, row.err) {
					t.Errorf("%v, %v; want %v, %v", empty, err, row.empty, row.err)
				}
			})
		}
	}
}
