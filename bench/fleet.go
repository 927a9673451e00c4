package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vsfleet/vsfleet/node/cgroup"
)

// cost of one run of a tool on all hosts.
type cost struct {
	cpu, wall time.Duration
	memory    int64 // the most at once, shared pages counted once
	lost      int   // hosts that were not reached
}

// A tool is a program that works on many hosts.
type tool struct {
	name  string
	args  []string
	env   []string
	slow  bool                 // one run has to do
	lost  func(out string) int // counts the hosts that its output says are lost; nil: it must lose none
	reset func() error         // before each run; may be nil
}

// compare runs the tools in turns, as often as rounds says, and prints what each costs. The first tool is
// vsfleet.
func compare(ctx context.Context, b *bench, title string, hosts, rounds int, tools []tool) error {
	runs := make([][]cost, len(tools))
	for round := range rounds {
		for i := range tools {
			k := (i + round) % len(tools)
			if tools[k].slow && len(runs[k]) > 0 {
				continue
			}
			c, err := tools[k].measure(ctx, b)
			if err != nil {
				return err
			}
			runs[k] = append(runs[k], c)
		}
	}
	fmt.Printf("\n%s\n", title)
	fmt.Printf("  %-28s %10s %23s %10s %10s %12s %5s  runs\n", "", "CPU a host", "range", "CPU", "in all", "memory", "lost")
	var own cost
	for i, t := range tools {
		slices.SortFunc(runs[i], func(a, b cost) int { return int(a.cpu - b.cpu) })
		mid, last := runs[i][len(runs[i])/2], runs[i][len(runs[i])-1]
		for _, c := range runs[i] {
			mid.memory, mid.lost = max(mid.memory, c.memory), max(mid.lost, c.lost)
		}
		if i == 0 {
			own = mid
		}
		n := time.Duration(hosts)
		fmt.Printf("  %-28s %10s %10s … %10s %10s %10s %9.1f MB %5d  %d", t.name, threeDigits(mid.cpu/n),
			threeDigits(runs[i][0].cpu/n), threeDigits(last.cpu/n), threeDigits(mid.cpu), threeDigits(mid.wall), float64(mid.memory)/1e6, mid.lost, len(runs[i]))
		if i > 0 {
			fmt.Printf("   vsfleet : it = %.3f of the processor, %.3f of the time", float64(own.cpu)/float64(mid.cpu), float64(own.wall)/float64(mid.wall))
		}
		fmt.Println()
	}
	return nil
}

// countLines returns a function that counts the lines with a text.
func countLines(text string) func(string) int {
	return func(out string) int { return strings.Count(out, text) }
}

// measure runs a tool in a cgroup of its own.
func (t tool) measure(ctx context.Context, b *bench) (c cost, err error) {
	if t.reset != nil {
		if err := t.reset(); err != nil {
			return c, err
		}
	}
	cg := cgroup.Dir(filepath.Join(b.cgroups, "tool"))
	if err := os.Mkdir(string(cg), 0o755); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, cg.Kill(ctx), cg.Remove()) }()
	dir, err := os.Open(string(cg))
	if err != nil {
		return c, err
	}
	defer dir.Close()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, t.args[0], t.args[1:]...)
	cmd.Env = append(append(os.Environ(), "HOME="+home), t.env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return c, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err = <-done:
			c.wall = time.Since(start)
			if t.lost != nil {
				c.lost, err = t.lost(out.String()), nil
			}
			if err != nil {
				return c, fmt.Errorf("%s: %w: %s", t.name, err, out.Bytes()[max(0, out.Len()-2000):])
			}
			c.cpu, err = cpuOf(cg)
			return c, err
		case <-look.C:
			m, err := memoryOf(cg)
			if err != nil {
				return c, err
			}
			c.memory = max(c.memory, m)
		}
	}
}

// cpuOf returns the processor time of a cgroup, ended processes included. The
// kernel counts it without any controller (cgroup-v2.rst, "CPU").
func cpuOf(cg cgroup.Dir) (time.Duration, error) {
	file := filepath.Join(string(cg), "cpu.stat")
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var µs int64
	if _, err := fmt.Sscanf(string(text), "usage_usec %d", &µs); err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return time.Duration(µs) * time.Microsecond, nil
}

// memoryOf returns the proportional set size of a cgroup's processes.
func memoryOf(cg cgroup.Dir) (sum int64, err error) {
	pids, err := cg.PIDs()
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // ended meanwhile
		}
		_, after, _ := strings.Cut(string(text), "\nPss:")
		var kib int64
		if _, err := fmt.Sscan(after, &kib); err == nil {
			sum += kib * 1024
		}
	}
	return sum, err
}
