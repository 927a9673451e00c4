package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

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

	process, floor, crun, err := b.memoryOfPeers(ctx)
	if err != nil {
		return err
	}
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
	// As many as the peers are.
	few := guests[:min(len(guests), memoryPeers)]
	some, err := kernelMemory()
	if err != nil {
		return err
	}
	if _, err := steps(few, api.StepStart); err != nil {
		return err
	}
	ofFew, err := kernelMemory()
	if err != nil {
		return err
	}
	if _, err := steps(few, api.StepStop); err != nil {
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
	say("one more is made by another vsnode", beside.create.median(), 20*time.Millisecond)
	say("  … processor time", beside.createCPU.median(), 0)
	say("  … on a host without guests", alone.create.median(), 0)
	say("  … processor time", alone.createCPU.median(), 0)
	say("one more is started", beside.start.median(), 0)
	say("  … processor time", beside.startCPU.median(), 0)
	say("  … on a host without guests", alone.start.median(), 0)
	say("  … processor time", alone.startCPU.median(), 0)
	fmt.Printf("  memory of the kernel: %d KiB a guest (target: 160)\n", (after-before)/1024/int64(len(guests)))
	fmt.Printf("  … of %d: %d; with the system calls alone (bench/floor): %d; crun, in the host's network: %d; the process alone: %d\n",
		len(few), (ofFew-some)/1024/int64(len(few)), floor, crun, process)
	fmt.Printf("  memory of vsnode: none, no process of ours stays\n")
	fmt.Printf("  disk, configuration included: %d KiB a guest (target: 200)\n", disk/1024/int64(len(guests)))
	return nil
}

// addition is the cost of one more guest: times, and the processor time in them, which
// depends less on what else the machine does.
type addition struct{ create, createCPU, start, startCPU times }

// oneMore makes, starts and deletes a guest, each time by a vsnode that has
// seen nothing of the host before.
func (b *bench) oneMore(ctx context.Context, g api.Guest) (m addition, err error) {
	measure := func(took, cpu *times, f func() error) error {
		before := processorTime()
		d, err := timed(f)
		*took, *cpu = append(*took, d), append(*cpu, processorTime()-before)
		return err
	}
	for range b.rounds(15) {
		fresh, err := node.Open("bench")
		if err != nil {
			return m, err
		}
		fresh.Guests.WatchStarts = false
		if err := measure(&m.create, &m.createCPU, func() error { return fresh.Guests.Create(ctx, g) }); err != nil {
			return m, err
		}
		if err := measure(&m.start, &m.startCPU, func() error { return fresh.Guests.Start(ctx, g.Name, guest.Options{}) }); err != nil {
			return m, err
		}
		if err := fresh.Guests.Delete(ctx, g.Name); err != nil {
			return m, err
		}
	}
	for _, t := range []times{m.create, m.createCPU, m.start, m.startCPU} {
		slices.Sort(t)
	}
	return m, nil
}

// processorTime returns what this process has used so far.
func processorTime() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // cannot fail
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
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
