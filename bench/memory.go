package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// memoryPeers is the number of processes, guests of the floor and containers of crun
// whose memory of the kernel's is measured.
const memoryPeers = 100

// memoryOfPeers returns the kernel's memory, in KiB for each, of a process and nothing
// around it, of a guest of the floor, and of a container of crun in the host's network,
// all of which run the same /bin/sleep as guests do.
func (b *bench) memoryOfPeers(ctx context.Context) (process, floor, crun int64, err error) {
	sleeper := filepath.Join(b.tree, "bin/sleep")
	var processes []*exec.Cmd
	process, err = kernelMemoryOf(func(int) error {
		c := exec.CommandContext(ctx, sleeper, "1000000")
		processes = append(processes, c)
		return c.Start()
	})
	for _, c := range processes {
		if c.Process != nil {
			err = errors.Join(err, c.Process.Kill())
			_ = c.Wait() // killed
		}
	}
	if err != nil {
		return 0, 0, 0, err
	}
	f, stop, err := b.startFloor(ctx, "/bin/sleep", "1000000")
	if err != nil {
		return 0, 0, 0, err
	}
	floor, err = kernelMemoryOf(func(int) error { return f.hold() })
	if err = errors.Join(err, stop()); err != nil {
		return 0, 0, 0, err
	}
	const dir = "/run/bundle-crun-memory"
	if err := (bundle{runtime: "crun", root: b.tree, hostNet: true}).write(ctx, dir, "/bin/sleep", "1000000"); err != nil {
		return 0, 0, 0, err
	}
	name := func(i int) string { return "memory-" + strconv.Itoa(i) }
	crun, err = kernelMemoryOf(func(i int) error { return runQuietly(ctx, "crun", "run", "--detach", "--bundle", dir, name(i)) })
	for i := range memoryPeers {
		err = errors.Join(err, runQuietly(context.WithoutCancel(ctx), "crun", "delete", "--force", name(i)))
	}
	return process, floor, crun, err
}

func kernelMemoryOf(start func(int) error) (int64, error) {
	before, err := kernelMemory()
	for i := 0; i < memoryPeers && err == nil; i++ {
		err = start(i)
	}
	if err != nil {
		return 0, err
	}
	after, err := kernelMemory()
	return (after - before) / 1024 / memoryPeers, err
}

// kernelMemory returns the bytes that the kernel holds for itself, without caches
// that it can give back. VmallocUsed has the stacks of the kernel too (CONFIG_VMAP_STACK,
// as x86-64 and arm64 have it), so KernelStack is not added.
func kernelMemory() (int64, error) {
	time.Sleep(200 * time.Millisecond) // RCU frees in its own time, and nothing reports it
	// What is free in slabs that are not would make the next ones seem to need nothing.
	caches, err := filepath.Glob("/sys/kernel/slab/*/shrink")
	if err != nil {
		return 0, err
	}
	for _, cache := range caches {
		_ = os.WriteFile(cache, []byte("1"), 0) // some cannot
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "SUnreclaim", "PageTables", "Percpu", "VmallocUsed":
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %w", err)
			}
			sum += kib * 1024
		}
	}
	return sum, nil
}
