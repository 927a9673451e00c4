package guest

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// index holds what all configurations claim. A create has to know that, and with a
// thousand guests it would have to read ten thousand files. So what was read once
// counts as long as the files are the same: their inode, size and time of change,
// which nobody can set back.
type index struct {
	mu     sync.Mutex
	loaded bool
	claims map[string]indexEntry
	reads  int // of configurations

	// What one vsnode does in a row, as in an apply, is not looked at again each time:
	// see claimedLast.
	epoch       string
	allRead     time.Time
	all         []api.Guest
	holdersRead time.Time
	holders     map[string]notes
	// making is claimed, and its configuration is being written.
	making map[string]api.Guest
}

// freshFor is how long what was read counts while no other vsnode changes anything.
// Somebody may always do so by hand: a start looks at what runs.
const freshFor = time.Second

// claimedLast reports whether this vsnode was the last to claim anything on the host.
// The lock of all configurations is held.
func (h *Host) claimedLast() bool {
	b, err := os.ReadFile(h.epochFile())
	return err == nil && h.index.epoch != "" && string(b) == h.index.epoch
}

// beforeClaim is called before something is claimed, so that whoever claims next
// reads anew what other vsnodes changed. The lock of all configurations is held.
func (h *Host) beforeClaim() error {
	ours := h.claimedLast()
	if !ours {
		h.index.allRead, h.index.holdersRead = time.Time{}, time.Time{}
	}
	h.index.epoch = rand.Text()
	err := os.WriteFile(h.epochFile(), []byte(h.index.epoch), 0o600)
	if err == nil {
		return nil
	}
	h.index.epoch = ""
	return remove(h.epochFile()) // as good, and there is always room for it
}

func (p Paths) epochFile() string { return filepath.Join(p.RunDir, "..epoch") } // no guest's name

// noteHolder adds a guest that this vsnode has just started, or changed while it
// runs. The lock of all configurations is held.
func (x *index) noteHolder(name string, st notes) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.holders == nil {
		x.holders = map[string]notes{}
	}
	x.holders[name] = st
}

// invalidate has all configurations looked at again.
func (x *index) invalidate() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.allRead = time.Time{}
}

// announce adds what this vsnode is about to configure. Until done is called,
// whoever claims something next sees it, whether it can be read by then or not.
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
			x.allRead = time.Time{} // who knows what is there now
			return
		}
		if i := slices.IndexFunc(x.all, func(o api.Guest) bool { return o.Name == g.Name }); i >= 0 {
			x.all[i] = g
		} else {
			x.all = append(x.all, g)
		}
	}
}

// guests returns those of all, and those in the making as well. Of one that is
// configured anew both count, for either may be what the disk says in the end.
func (x *index) guests() []api.Guest {
	all := slices.Clone(x.all)
	for _, g := range x.making {
		all = append(all, g)
	}
	return all
}

// indexEntry is what one configuration claims.
type indexEntry struct {
	Guest api.Guest
	Bad   bool   `json:",omitempty"` // it cannot be read: nobody knows
	Files string // below its directory, one per line: all that was looked at, or the directory where it was not
	Sum   uint64 // of what stat says of them
}

// indexFile is the index as vsnode leaves it to the next one.
type indexFile struct {
	By     uint64 // of the binary: another may read a configuration in another way
	Claims map[string]indexEntry
}

// clockTick is how old a file has to be when it is read, so that its next change has
// another time: the kernel takes times of change from a clock that goes by ticks.
const clockTick = 50 * time.Millisecond

// saveAfter is how many configurations may be read again by each vsnode before
// one of them saves the index.
const saveAfter = 32

// configured are all guests by what they claim. One that cannot be read is no
// reason to refuse another; what it claims is then unknown. The lock of all
// configurations is held, or the answer may be old when it comes.
func (h *Host) configured() ([]api.Guest, error) {
	x := &h.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.allRead) < freshFor && h.claimedLast() {
		return x.guests(), nil
	}
	x.allRead = time.Now()
	entries, err := os.ReadDir(h.ConfigDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !x.loaded {
		x.load(h.indexFile())
	}
	known, read := make(map[string]indexEntry, len(entries)), 0
	var all []api.Guest
	for _, e := range entries {
		name := e.Name()
		c, there := x.claims[name]
		if !there || c.Sum == 0 || c.Sum != statSum(h.config(name), c.Files, time.Time{}) {
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
			all = append(all, c.Guest)
		}
	}
	x.claims = known
	if read >= saveAfter {
		x.save(h.indexFile())
	}
	x.all = all
	return x.guests(), nil
}

func (p Paths) indexFile() string { return filepath.Join(p.RunDir, "..claims") } // no guest's name

// readClaim reads what a configuration claims, and nothing else of it.
func (h *Host) readClaim(name string) indexEntry {
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
	files := map[string]bool{".": true} // where vdir is
	for file := range t.seen {
		// What is not there comes by a change of the directory where it would be.
		for !isThere(filepath.Join(dir, file)) && file != "." {
			file = filepath.Dir(file)
		}
		files[file] = true
	}
	cl := indexEntry{Guest: c.Guest, Bad: err != nil}
	cl.Files = strings.Join(slices.Sorted(maps.Keys(files)), "\n")
	cl.Sum = statSum(dir, cl.Files, begun.Add(-clockTick))
	return cl
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// statSum returns a number that changes with the files; 0 if their next change could
// not be told by it.
func statSum(dir, files string, before time.Time) uint64 {
	h := fnv.New64a()
	for file := range strings.SplitSeq(files, "\n") {
		var st unix.Stat_t
		if err := unix.Stat(dir+"/"+file, &st); err != nil {
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

func (x *index) load(path string) {
	x.loaded, x.claims = true, map[string]indexEntry{}
	var s indexFile
	b, err := os.ReadFile(path)
	if err == nil && json.Unmarshal(b, &s) == nil && s.By == binarySum() && s.Claims != nil {
		x.claims = s.Claims
	}
}

// save is a help for the next vsnode, nothing that has to succeed.
func (x *index) save(path string) {
	if b, err := json.Marshal(indexFile{binarySum(), x.claims}); err == nil {
		_ = linux.ReplaceFile(path, b, 0o600)
	}
}

// binarySum is another number for each binary.
func binarySum() uint64 { return statSum("/proc/self", "exe", time.Time{}) }
