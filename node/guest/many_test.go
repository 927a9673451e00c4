package guest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/stat"
)

// aTick lets the clock of files go on: a change within a tick of the one before cannot be
// seen by its time, and nothing tells when the tick is over.
func aTick() { time.Sleep(2 * clockTick) }

// numbered returns one of many guests of a host: they cover all modes, each with
// addresses or ports of its own.
func numbered(i int) api.Guest {
	g := inMode([]api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT}[i%3], fmt.Sprintf("many-%04d", i), 2000+i, "sleep", "1000")
	p := uint16(10000 + i)
	switch g.Network.Mode {
	case api.ModeShared:
		g.Network.Ports = []port.Range{{Proto: port.TCP, First: p, Last: p}}
	case api.ModeOwn:
		g.Network.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 16)}
	case api.ModeNAT:
		g.Network.Forwards = []port.Forward{{Proto: port.TCP, Host: p, Guest: 80}}
	}
	return g
}

// inMemory returns a host on a tmpfs: how long a sync takes is not measured here.
func inMemory(b testing.TB) *Host {
	h := host(b)
	must(b, os.MkdirAll(h.RunDir, 0o755))
	for _, dir := range []string{h.ConfigDir, h.DataDir} {
		must(b, os.MkdirAll(dir, 0o755))
		must(b, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
		b.Cleanup(func() { must(b, unix.Unmount(dir, unix.MNT_DETACH)) })
	}
	b.Cleanup(func() {
		var group errgroup.Group
		group.SetLimit(8)
		names, err := h.allNames()
		must(b, err)
		for _, name := range names {
			group.Go(func() error { return h.Delete(context.Background(), name) })
		}
		must(b, group.Wait())
	})
	return h
}

func thousand(b testing.TB) *Host {
	h := inMemory(b)
	for i := range 1000 {
		g := numbered(i)
		if err := h.write(g, h.rootDir(g.Name)); err != nil {
			b.Fatal(err)
		}
	}
	return h
}

// With many guests, a create reads only what has changed since the last look.
func TestConfigurationsAreReadOnce(t *testing.T) {
	h := inMemory(t)
	const many = 3 * saveAfter
	for i := range many {
		g := numbered(i)
		must(t, h.write(g, h.rootDir(g.Name)))
	}
	aTick()
	another := func() *Host { return &Host{Paths: h.Paths, Tree: h.Tree} }
	claims := func(h *Host) (map[string]api.Guest, int) {
		t.Helper()
		before := h.index.reads
		list, err := h.configured()
		must(t, err)
		of := map[string]api.Guest{}
		for _, g := range list {
			of[g.Name] = *g
		}
		return of, h.index.reads - before
	}
	for _, row := range []struct {
		name   string
		h      *Host
		change func(dir string) error // of the configuration of guest 0
		reads  int
		check  func(map[string]api.Guest) bool
	}{
		{"at first", h, nil, many, nil},
		{"again", h, nil, 0, nil},
		{"by another vsnode", another(), nil, 0, nil},
		{"a file is written to", h, func(dir string) error { return os.WriteFile(dir+"/context", []byte("9000\n"), 0o644) }, 1,
			func(all map[string]api.Guest) bool { return all["many-0000"].Context == 9000 }},
		{"with as many bytes as before, and its time set back", h, func(dir string) error {
			st, err := os.Stat(dir + "/interfaces/ports")
			must(t, err)
			must(t, os.WriteFile(dir+"/interfaces/ports", []byte("10999\n"), 0o644))
			return os.Chtimes(dir+"/interfaces/ports", st.ModTime(), st.ModTime())
		}, 1, func(all map[string]api.Guest) bool { return all["many-0000"].Network.Ports[0].First == 10999 }},
		{"a file is new where none was", h, func(dir string) error {
			must(t, os.Mkdir(dir+"/interfaces/1", 0o755))
			must(t, os.WriteFile(dir+"/interfaces/1/nodev", nil, 0o644))
			return os.WriteFile(dir+"/interfaces/1/ip", []byte("198.51.100.1\n"), 0o644)
		}, 1, func(all map[string]api.Guest) bool { return len(all["many-0000"].Network.Addresses) == 2 }},
		{"and the mode becomes another", h, func(dir string) error {
			must(t, os.RemoveAll(dir+"/interfaces"))
			must(t, os.Mkdir(dir+"/netns", 0o755))
			return os.WriteFile(dir+"/netns/nat", nil, 0o644)
		}, 1, func(all map[string]api.Guest) bool { return all["many-0000"].Network.Mode == api.ModeNAT }},
		{"a guest is gone", h, os.RemoveAll, 0, func(all map[string]api.Guest) bool { _, there := all["many-0000"]; return !there }},
		{"the index is damaged", another(), func(string) error { return os.WriteFile(h.indexFile(), []byte("{"), 0o600) }, many - 1, nil},
	} {
		if row.change != nil {
			must(t, row.change(h.config("many-0000")))
			aTick()
		}
		all, reads := claims(row.h)
		if reads != row.reads || row.check != nil && !row.check(all) {
			t.Errorf("%s: %d configurations are read, want %d; the guest has %+v", row.name, reads, row.reads, all["many-0000"])
		}
	}
}

// Nor does a start beside many read the notes of all again.
func TestNotesOfOthersAreReadOnce(t *testing.T) {
	h := inMemory(t)
	const many = 2 * saveAfter
	write := func(i, xid int) {
		g := numbered(i)
		must(t, h.writeNotes(g.Name, "/nosuch", notes{Context: xid, Root: h.rootDir(g.Name), Runs: &g}))
	}
	for i := range many {
		write(i, 2000+i)
	}
	t.Cleanup(func() {
		for i := range many {
			must(t, os.RemoveAll(h.notesFile(numbered(i).Name)))
		}
	})
	aTick()
	first := h.notesFile(numbered(0).Name)
	for _, row := range []struct {
		name   string
		change func()
		reads  int
		xid    int // of guest 0
	}{
		{"at first", func() {}, many, 2000},
		{"by another vsnode", func() {}, 0, 2000},
		{"one was started anew", func() { write(0, 9000) }, 1, 9000},
		{"one is gone", func() { must(t, os.Remove(first)) }, 0, 0},
		{"the index is damaged", func() { write(0, 2000); must(t, os.WriteFile(h.holdersFile(), []byte("{"), 0o600)) }, many, 2000},
	} {
		row.change()
		aTick()
		another := &Host{Paths: h.Paths, Tree: h.Tree}
		of, err := another.holders()
		must(t, err)
		xid := 0
		if held := of[numbered(0).Name]; held != nil {
			xid = held.Guest.Context
		}
		if another.index.reads != row.reads || xid != row.xid {
			t.Errorf("%s: notes of %d are read, want %d; the context is %d, want %d", row.name, another.index.reads, row.reads, xid, row.xid)
		}
		if g := numbered(3); clash(&g, "", g.Name, of[g.Name]) == nil {
			t.Errorf("%s: what another guest has is not known", row.name)
		}
	}
}

// What a vsnode remembers from one create or start to the next is valid only while no
// other vsnode has changed anything.
func TestTwoVsnodesSeeWhatEachOtherClaims(t *testing.T) {
	ctx := context.Background()
	h := inMemory(t)
	nodes := []*Host{h, {Paths: h.Paths, Tree: h.Tree}}
	last := -1
	for i := range 8 {
		node := nodes[i%2]
		g := numbered(3 * i) // shared
		must(t, node.Create(ctx, g))
		must(t, node.Start(ctx, g.Name, Options{}))
		other := numbered(3*i + 100*3)
		other.Context = g.Context
		if err := nodes[(i+1)%2].Create(ctx, other); err == nil || !strings.Contains(err.Error(), g.Name) {
			t.Errorf("the other vsnode creates a guest with the context of %s: %v", g.Name, err)
		}
		if last >= 0 { // refused because of the guest that the other vsnode has started meanwhile
			must(t, nodes[(i+1)%2].Create(ctx, numbered(3*i+1))) // remembers
			must(t, os.WriteFile(filepath.Join(h.config(numbered(3*i+1).Name), "context"), []byte(fmt.Sprintln(g.Context)), 0o644))
			if err := nodes[(i+1)%2].Start(ctx, numbered(3*i+1).Name, Options{}); err == nil || !strings.Contains(err.Error(), g.Name) {
				t.Errorf("the other vsnode starts a guest with the context of %s: %v", g.Name, err)
			}
			must(t, os.WriteFile(filepath.Join(h.config(numbered(3*i+1).Name), "context"), []byte(fmt.Sprintln(numbered(3*i+1).Context)), 0o644))
		}
		last = i
	}
	gone := numbered(0)
	must(t, nodes[0].Delete(ctx, gone.Name))
	gone.Name = "again"
	must(t, nodes[0].Create(ctx, gone)) // seen at once
}

// A file that was changed just before it was read may change again in the same tick of
// the kernel's clock.
func TestFreshFilesAreReadAgain(t *testing.T) {
	h := inMemory(t)
	g := numbered(0)
	must(t, h.write(g, h.rootDir(g.Name)))
	for want := 1; want < 4; want++ {
		_, err := h.configured()
		must(t, err)
		if h.index.reads != want && h.index.claims[g.Name].Sum == 0 {
			t.Errorf("read %d times, want %d", h.index.reads, want)
		}
	}
}

func BenchmarkCreateBesideAThousand(b *testing.B) {
	h := thousand(b)
	b.ResetTimer()
	for b.Loop() {
		fresh := &Host{Paths: h.Paths, Tree: h.Tree} // another vsnode
		g := numbered(1000)
		if err := fresh.Create(context.Background(), g); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := fresh.Delete(context.Background(), g.Name); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkStatesOfAThousand(b *testing.B) {
	h := thousand(b)
	b.ResetTimer()
	for b.Loop() {
		if list, err := h.States(context.Background()); err != nil || len(list) != 1000 {
			b.Fatal(len(list), err)
		}
	}
}

// BenchmarkAThousand makes and starts guests, eight at once as an apply does, and
// reports what they use.
func BenchmarkAThousand(b *testing.B) {
	h := inMemory(b)
	ctx := context.Background()
	each := func(f func(g api.Guest) error) {
		begun := time.Now()
		var group errgroup.Group
		group.SetLimit(8)
		for i := range 1000 {
			group.Go(func() error { return f(numbered(i)) })
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		b.Log(time.Since(begun))
	}
	b.Log("create, start")
	each(func(g api.Guest) error { return h.Create(ctx, g) })
	each(func(g api.Guest) error { return h.Start(ctx, g.Name, Options{}) })
	mount, err := cgroup.Mount()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		fresh := &Host{Paths: h.Paths} // another vsnode
		living, err := fresh.Lives(ctx)
		if err != nil || len(living) != 1000 {
			b.Fatal(len(living), err)
		}
		guests := make([]stat.Guest, len(living))
		for i, g := range living {
			guests[i] = stat.Guest{XID: g.Context, Name: g.Name, Started: g.Started, Cgroup: "vservers/" + g.Name}
		}
		rows, err := stat.Read(ctx, mount, guests)
		if err != nil {
			b.Fatal(err)
		}
		var names []string
		for _, row := range rows {
			names = append(names, row.Name)
		}
		if _, err := fresh.Traffic(names); err != nil {
			b.Fatal(err)
		}
	}
	begun := time.Now()
	if drift, err := h.Drift(ctx); err != nil || len(drift) > 0 {
		b.Error(drift, err)
	}
	b.Log("drift: ", time.Since(begun))
}

// BenchmarkKernelMemory reports what the kernel needs for a guest in the host's network
// whose init is sleep, in KiB. Free slabs are given back before each look. VmallocUsed has
// the kernel's stacks too (CONFIG_VMAP_STACK).
func BenchmarkKernelMemory(b *testing.B) {
	h := host(b) // Debian 12's kernel maps no ids of a tmpfs
	ctx := context.Background()
	kinds := []string{"SUnreclaim", "PageTables", "VmallocUsed", "Percpu"}
	look := func() (kib [4]int) {
		time.Sleep(time.Second) // RCU frees in its own time
		shrinks, err := filepath.Glob("/sys/kernel/slab/*/shrink")
		must(b, err)
		for _, path := range shrinks {
			_ = os.WriteFile(path, []byte("1"), 0) // some cannot
		}
		text, err := os.ReadFile("/proc/meminfo")
		must(b, err)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			if i := slices.Index(kinds, name); i >= 0 {
				_, err := fmt.Sscan(value, &kib[i])
				must(b, err)
			}
		}
		return kib
	}
	const many = 200
	for i := range many + 1 {
		must(b, h.Create(ctx, numbered(3*i))) // shared
		b.Cleanup(func() { must(b, h.Delete(ctx, numbered(3*i).Name)) })
	}
	must(b, h.Start(ctx, numbered(0).Name, Options{})) // loads programs
	for b.Loop() {
		before := look()
		for i := range many {
			must(b, h.Start(ctx, numbered(3*(i+1)).Name, Options{}))
		}
		after, sum := look(), 0
		for i, kind := range kinds {
			b.ReportMetric(float64(after[i]-before[i])/many, kind)
			sum += after[i] - before[i]
		}
		b.ReportMetric(float64(sum)/many, "KiB/guest")
		for i := range many {
			_, err := h.Stop(ctx, numbered(3*(i+1)).Name)
			must(b, err)
		}
	}
}

// While one create waits for the disk, another of the same vsnode does not wait but
// sees its claims; another vsnode waits.
func TestCreatesWaitForTheDiskTogether(t *testing.T) {
	ctx := context.Background()
	h := inMemory(t)
	const many = 4
	begun := make(chan struct{})
	release := make(chan struct{})
	first := sync.OnceFunc(func() { close(begun); <-release })
	original := syncfs
	syncfs = func(dir string) error { first(); return original(dir) }
	t.Cleanup(func() { syncfs = original })

	var group errgroup.Group
	group.Go(func() error { return h.Create(ctx, numbered(0)) })
	<-begun
	for i := 1; i < many; i++ {
		group.Go(func() error { return h.Create(ctx, numbered(3*i)) })
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		h.index.mu.Lock()
		making := len(h.index.making)
		h.index.mu.Unlock()
		if making == many {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d of %d guests are being made while the disk is slow", making, many)
			break
		}
	}
	if unlock, err := (&Host{Paths: h.Paths}).tryLock(""); err != nil || unlock != nil {
		t.Errorf("another vsnode may claim something meanwhile (%v)", err)
	}
	h.turns.mu.Lock()
	h.turns.since = time.Now() // this one may still join
	h.turns.mu.Unlock()
	other := numbered(300)
	other.Context = numbered(0).Context
	if err := h.Create(ctx, other); err == nil || !strings.Contains(err.Error(), numbered(0).Name) {
		t.Errorf("a guest is made with the context of one that is being made: %v", err)
	}
	close(release)
	must(t, group.Wait())
	list, err := (&Host{Paths: h.Paths}).configured()
	if err != nil || len(list) != many {
		t.Errorf("%d guests are configured, want %d (%v)", len(list), many, err)
	}
}
