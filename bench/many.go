package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// manyRow fills a host: guests of one image whose init is /bin/sleep, made and
// started as an apply does it. What one more costs then is shown beside what it
// costs on a host without another guest.
func manyRow(ctx context.Context, b *bench) (err error) {
	if held, err := b.host.Lease(ctx, api.Lease{}); err != nil || !held.Held {
		return errors.Join(err, errors.New("another run has the lease of the host"))
	}
	guests := make([]api.Guest, b.many)
	for i := range guests {
		guests[i] = b.spec(fmt.Sprintf("many-%04d", i), "/bin/sleep", "1000000")
	}
	one := b.spec("one", "/bin/sleep", "1000000")
	// steps takes the same steps for all guests, as one apply.
	steps := func(of []api.Guest, kinds ...api.StepKind) (time.Duration, error) {
		var list []api.Step
		for i := range of {
			for _, kind := range kinds {
				list = append(list, api.Step{Kind: kind, Name: of[i].Name, Guest: &of[i]})
			}
		}
		return timed(func() error {
			answer, err := b.host.Apply(ctx, api.Apply{Run: "bench", Steps: list}, func(api.Event) {})
			for i, r := range answer.Results {
				if r.Error != "" {
					return fmt.Errorf("%s %s: %s", list[i].Kind, list[i].Name, r.Error)
				}
			}
			return err
		})
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		for _, g := range append(guests, one) {
			if _, serr := b.host.Guests.Stop(ctx, g.Name); serr != nil && !errors.Is(serr, guest.ErrNoGuest) {
				err = errors.Join(err, serr)
			}
		}
	}()

	alone, err := b.oneMore(ctx, one)
	if err != nil {
		return err
	}
	before, err := kernelMemory()
	if err != nil {
		return err
	}
	b.host.Guests.WatchStarts = true
	applied, err := steps(guests, api.StepCreate, api.StepStart)
	b.host.Guests.WatchStarts = false
	if err != nil {
		return err
	}
	after, err := kernelMemory()
	if err != nil {
		return err
	}
	var disk int64
	for _, g := range guests {
		for _, dir := range []string{b.host.Guests.DataDir, b.host.Guests.ConfigDir} {
			n, err := diskUse(filepath.Join(dir, g.Name))
			if err != nil {
				return err
			}
			disk += n
		}
	}
	beside, err := b.oneMore(ctx, one)
	if err != nil {
		return err
	}
	counted, err := turns(ctx, b.rounds(10), []subject{command("vserver-stat", b.vserverStat)})
	if err != nil {
		return err
	}
	planned, err := turns(ctx, b.rounds(5), []subject{{"plan", func(ctx context.Context) (time.Duration, error) { return b.plan(ctx, guests) }}})
	if err != nil {
		return err
	}
	stopped, err := steps(guests, api.StepStop)
	if err != nil {
		return err
	}
	started, err := steps(guests, api.StepStart)
	if err != nil {
		return err
	}

	fmt.Printf("\n%d guests of one image whose init is /bin/sleep\n", len(guests))
	say := func(what string, took, target time.Duration) {
		word := ""
		if len(guests) == 1000 && target > 0 {
			word = "   (target " + threeDigits(target) + ")"
		}
		fmt.Printf("  %-44s %10s%s\n", what, threeDigits(took), word)
	}
	say("made and started by one apply", applied, 15*time.Second)
	say("stopped by one apply", stopped, 4*time.Second)
	say("started by one apply, not watched", started, 4*time.Second)
	say("vserver-stat", counted[0].median(), 100*time.Millisecond)
	say("asked for their state, and planned", planned[0].median(), 0)
	say("one more is made by another vsnode", beside.create, 20*time.Millisecond)
	say("  … on a host without guests", alone.create, 0)
	say("one more is started", beside.start, 0)
	say("  … on a host without guests", alone.start, 0)
	fmt.Printf("  memory of the kernel: %d KiB a guest (target: 160)\n", (after-before)/1024/int64(len(guests)))
	fmt.Printf("  memory of vsnode: none, no process of ours stays\n")
	fmt.Printf("  disk, configuration included: %d KiB a guest (target: 200)\n", disk/1024/int64(len(guests)))
	return nil
}

// addition is the cost of one more guest.
type addition struct{ create, start time.Duration }

// oneMore makes, starts and deletes a guest, each time by a vsnode that has
// seen nothing of the host before, and gives the medians.
func (b *bench) oneMore(ctx context.Context, g api.Guest) (m addition, err error) {
	var creates, starts times
	for range b.rounds(7) {
		fresh, err := node.Open("bench")
		if err != nil {
			return m, err
		}
		fresh.Guests.WatchStarts = false
		create, err := timed(func() error { return fresh.Guests.Create(ctx, g) })
		if err != nil {
			return m, err
		}
		start, err := timed(func() error { return fresh.Guests.Start(ctx, g.Name, guest.Options{}) })
		if err != nil {
			return m, err
		}
		if err := fresh.Guests.Delete(ctx, g.Name); err != nil {
			return m, err
		}
		creates, starts = append(creates, create), append(starts, start)
	}
	slices.Sort(creates)
	slices.Sort(starts)
	return addition{creates.median(), starts.median()}, nil
}

// plan asks the host what there is, and compares it with an inventory that wants
// just that.
func (b *bench) plan(ctx context.Context, guests []api.Guest) (time.Duration, error) {
	wanted := &inventory.Host{Name: "bench"}
	for _, g := range guests {
		wanted.Guests = append(wanted.Guests, &inventory.Guest{Guest: api.Guest{Name: g.Name, Context: g.Context, Image: "busybox"}, State: inventory.Running})
	}
	image := &inventory.Image{Name: "busybox", Method: "template"}
	return timed(func() error {
		state, err := b.host.State(ctx)
		if err == nil && len(state.Guests) < len(guests) { // and those of other rows
			err = fmt.Errorf("the host has %d guests", len(state.Guests))
		}
		if err == nil {
			plan.Make(wanted, state, api.FilesAnswer{}, plan.Rules{Image: func(string) *inventory.Image { return image }})
		}
		return err
	})
}

// kernelMemory returns the bytes that the kernel holds for itself, without caches
// that it can give back.
func kernelMemory() (int64, error) {
	time.Sleep(200 * time.Millisecond) // RCU frees in its own time, and nothing reports it
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

// diskUse returns the bytes that a tree takes on the disk.
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
