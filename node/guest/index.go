package guest

import (
	"crypto/rand"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// index caches the claims of all configurations. A create needs them all, and on a host
// with a thousand guests would have to read ten thousand files. A cached claim is valid
// as long as its files have the same inode, size and change time (ctime), which nobody
// can set back.
type index struct {
	mu     sync.Mutex
	loaded bool
	claims map[string]*indexEntry
	reads  int // number of configurations and notes read

	// During a series of operations by one vsnode, as in an apply, the directory is not
	// read again each time: see claimedLast.
	epoch       string
	allRead     time.Time
	all         []*api.Guest
	holdersRead time.Time
	holders     map[string]*indexEntry // nil: those that another vsnode saved were not looked at
	// making holds guests that are claimed and whose configuration is being written.
	making map[string]api.Guest
}

// freshFor is how long cached claims count while no other vsnode changes anything.
// Somebody may always edit by hand: a start checks against what runs.
const freshFor = time.Second

// claimedLast reports whether this vsnode was the last to claim anything on the host.
// The lock of all configurations is held.
func (h *Host) claimedLast() bool {
	b, err := linux.ReadFile(h.epochFile())
	return err == nil && h.index.epoch != "" && string(b) == h.index.epoch
}

// beforeClaim is called before something is claimed, so that the next vsnode that
// claims rereads what changed. The lock of all configurations is held.
func (h *Host) beforeClaim() error {
	ours := h.claimedLast()
	if !ours {
		h.index.allRead, h.index.holdersRead = time.Time{}, time.Time{}
	}
	h.index.epoch = rand.Text()
	err := linux.WriteFile(h.epochFile(), []byte(h.index.epoch), 0o600)
	if err == nil {
		return nil
	}
	h.index.epoch = ""
	return remove(h.epochFile()) // as good, and needs no disk space
}

func (p Paths) epochFile() string { return filepath.Join(p.RunDir, "..epoch") } // not a valid guest name

// noteHolder adds a guest that this vsnode has just started, or changed while it runs.
// The lock of all configurations is held.
func (x *index) noteHolder(name string, st notes) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.holders == nil {
		x.holders = map[string]*indexEntry{}
	}
	x.holders[name] = st.entry(name)
}

// invalidate makes the next call look at all configurations again.
func (x *index) invalidate() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.allRead = time.Time{}
}

// announce adds what this vsnode is about to configure. Until done is called, later
// claims see it, whether or not it can be read by then.
func (x *index) announce(g api.Guest) (done func(err error)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.making == nil {
		x.making = map[string]api.Guest{}
	}
	x.making[g.Name] = g
	return func(err error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.making, g.Name)
		if err != nil {
			x.allRead = time.Time{} // what is on disk now is unknown
			return
		}
		if i := slices.IndexFunc(x.all, func(o *api.Guest) bool { return o.Name == g.Name }); i >= 0 {
			x.all[i] = &g
		} else {
			x.all = append(x.all, &g)
		}
	}
}

// guests returns all configured guests and those in the making. If a guest is being
// reconfigured both versions count, for either may be on disk in the end.
func (x *index) guests() []*api.Guest {
	all := slices.Clone(x.all)
	for _, g := range x.making {
		all = append(all, &g)
	}
	return all
}

// indexEntry holds what one configuration claims, or a guest that may run: its name,
// context, and what package claim has rules for.
type indexEntry struct {
	Guest api.Guest
	Bad   bool   // the configuration cannot be read: its claims are unknown
	Files string // of a configuration, relative to its directory: each file that was looked at, or where it is missing, the directory
	Root  string // of a guest that may run: the directory of its files
	Sum   uint64 // checksum of the stat(2) data of Files, or of the file of its notes; 0: to be read again
}

// clockTick is how old a file must be when it is read so that its next change gets
// another ctime: the kernel's clock for ctimes advances in ticks.
const clockTick = 50 * time.Millisecond

// saveAfter is the number of configurations a vsnode has to reread before it saves the
// index.
const saveAfter = 32

// configured returns the claims of all configured guests. A guest whose configuration
// cannot be read is left out, as it must not block others; its claims are then unknown.
// Unless the lock of all configurations is held the answer may be out of date.
func (h *Host) configured() ([]*api.Guest, error) {
	x := &h.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.allRead) < freshFor && h.claimedLast() {
		return x.guests(), nil
	}
	x.allRead = time.Now()
	if !x.loaded {
		x.loaded, x.claims = true, loadIndex(h.indexFile())
	}
	names, sums, err := x.sums(h.ConfigDir)
	if err != nil {
		return nil, err
	}
	known, read := make(map[string]*indexEntry, len(names)), 0
	all := make([]*api.Guest, 0, len(names))
	for i, name := range names {
		c := x.claims[name]
		if c == nil || c.Sum == 0 || c.Sum != sums[i] {
			if CheckName(name) != nil {
				continue
			}
			if _, err := h.vdir(name); err != nil {
				continue
			}
			c = h.readClaim(name)
			read++
		}
		known[name] = c
		if !c.Bad {
			all = append(all, &c.Guest)
		}
	}
	x.claims = known
	if read >= saveAfter {
		saveIndex(h.indexFile(), known)
	}
	x.all = all
	return x.guests(), nil
}

// sums returns the names in the directory of all configurations, and for those that are
// in the index the present checksums of their files. It is most of what a create takes on
// a host with many guests, so all processors take part.
func (x *index) sums(dir string) (names []string, sums []uint64, err error) {
	f, names, err := linux.Names(dir)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	slices.Sort(names)
	sums = make([]uint64, len(names))
	var all sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		all.Go(func() {
			for i := w; i < len(names); i += workers {
				if c := x.claims[names[i]]; c != nil {
					sums[i] = statSum(int(f.Fd()), names[i], c.Files, time.Time{})
				}
			}
		})
	}
	all.Wait()
	return names, sums, nil
}

func (p Paths) indexFile() string   { return filepath.Join(p.RunDir, "..claims") } // not a valid guest name
func (p Paths) holdersFile() string { return filepath.Join(p.RunDir, "..holders") }

// readClaim reads only what a configuration claims.
func (h *Host) readClaim(name string) *indexEntry {
	dir := h.config(name)
	h.index.reads++
	begun := time.Now()
	c := Config{Guest: api.Guest{Name: name}}
	t := openTree(dir)
	t.seen = map[string]bool{}
	err := c.readContext(t)
	if err == nil {
		err = c.readNetwork(t)
	}
	if err == nil {
		err = t.err
	}
	files := map[string]bool{".": true} // vdir is directly in it
	for file := range t.seen {
		// A file that is missing can only appear by a change to the directory it would
		// be in.
		for !isThere(filepath.Join(dir, file)) && file != "." {
			file = filepath.Dir(file)
		}
		files[file] = true
	}
	cl := &indexEntry{Guest: c.Guest}
	if err != nil {
		cl = &indexEntry{Guest: api.Guest{Name: name}, Bad: true}
	}
	cl.Files = strings.Join(slices.Sorted(maps.Keys(files)), fileSep)
	cl.Sum = statSum(unix.AT_FDCWD, dir, cl.Files, begun.Add(-clockTick))
	return cl
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fileSep separates the names in the Files of an indexEntry.
const fileSep = "\v"

// statSum returns a checksum that changes with the files of a directory, which is below
// another one (openat(2)), or 0 if it might not change with their next change.
func statSum(at int, dir, files string, before time.Time) uint64 {
	h := fnv.New64a()
	for file := range strings.SplitSeq(files, fileSep) {
		var st unix.Stat_t
		if err := unix.Fstatat(at, dir+"/"+file, &st, 0); err != nil {
			return 0
		}
		if !before.IsZero() && st.Ctim.Nano() >= before.UnixNano() {
			return 0
		}
		var b [40]byte
		for i, n := range [5]uint64{st.Ino, uint64(st.Size), uint64(st.Ctim.Nano()), uint64(st.Dev), uint64(st.Mode)} {
			for k := range 8 {
				b[8*i+k] = byte(n >> (8 * k))
			}
		}
		h.Write(b[:])
	}
	return h.Sum64()
}

// binarySum returns a checksum that differs for each binary.
func binarySum() uint64 { return statSum(unix.AT_FDCWD, "/proc/self", "exe", time.Time{}) }
