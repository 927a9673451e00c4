package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/node/guest"
)

// manyRow starts many idle guests of one image at once: how many a second, and
// what each costs in memory of the kernel and on the disk.
func manyRow(ctx context.Context, b *bench) (err error) {
	const atOnce = 8
	count := b.rounds(100)
	var names []string
	for i := range count {
		name := fmt.Sprintf("many-%d", i)
		if err := b.guest(ctx, name, "/bin/sleep", "1000000"); err != nil {
			return err
		}
		names = append(names, name)
	}
	each := func(f func(name string) error) error {
		var g errgroup.Group
		g.SetLimit(atOnce)
		for _, name := range names {
			g.Go(func() error { return f(name) })
		}
		return g.Wait()
	}
	stop := func(name string) error { _, err := b.host.Guests.Stop(ctx, name); return err }
	defer func() { err = errors.Join(err, each(stop)) }()

	before, err := kernelMemory()
	if err != nil {
		return err
	}
	took, err := timed(func() error {
		return each(func(name string) error { return b.host.Guests.Start(ctx, name, guest.Options{}) })
	})
	if err != nil {
		return err
	}
	after, err := kernelMemory()
	if err != nil {
		return err
	}
	var disk int64
	for _, name := range names {
		for _, dir := range []string{b.host.Guests.DataDir, b.host.Guests.ConfigDir} {
			n, err := diskUse(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			disk += n
		}
	}
	fmt.Printf("\n%d guests of one image whose init is /bin/sleep, %d at once\n", count, atOnce)
	fmt.Printf("  started in %s: %.0f a second\n", short(took), float64(count)/took.Seconds())
	fmt.Printf("  memory of the kernel: %d KiB a guest (target: 250)\n", (after-before)/1024/int64(count))
	fmt.Printf("  memory of vsnode: none, no process of ours stays\n")
	fmt.Printf("  disk, configuration included: %d KiB a guest (target: 200)\n", disk/1024/int64(count))
	stopped, err := timed(func() error { return each(stop) })
	if err != nil {
		return err
	}
	fmt.Printf("  stopped in %s: %.0f a second\n", short(stopped), float64(count)/stopped.Seconds())
	return nil
}

// kernelMemory is what the kernel holds for itself, in bytes. What it could
// give back is given back first, or a cache that grows meanwhile would count.
func kernelMemory() (int64, error) {
	time.Sleep(200 * time.Millisecond) // RCU frees in its own time, and tells nobody
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "SUnreclaim", "KernelStack", "PageTables", "Percpu", "VmallocUsed":
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/meminfo: %w", err)
			}
			sum += kib * 1024
		}
	}
	return sum, nil
}

// diskUse is what a tree takes on the disk.
func diskUse(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	return sum, err
}
