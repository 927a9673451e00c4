package check

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/probe"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// idRange is a line of /etc/subuid or subgid: IDs that a user of the host may use in
// their own user namespaces.
type idRange struct {
	user        string
	first, last uint64
}

// parseIDRanges reads subuid(5); invalid lines are skipped.
func parseIDRanges(text string) []idRange {
	var ranges []idRange
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 != nil || err2 != nil || count == 0 {
			continue
		}
		ranges = append(ranges, idRange{f[0], first, first + count - 1})
	}
	return ranges
}

// contexts returns the contexts whose IDs are in the range; none if first > last.
func (r idRange) contexts() (first, last int) {
	return max(int(r.first/procctx.IDs), api.MinContext), min(int(r.last/procctx.IDs), api.MaxContext)
}

// idRanges returns the users of the host who may take a guest's IDs. A range that no
// guest is in is in order: Debian's first user overlaps context 2.
func idRanges(s *probe.System) probe.Answer {
	guests, err := contexts(s)
	if err != nil {
		return probe.Unknown("%v", err)
	}
	var bad, taken []string
	seen := map[string]bool{} // subuid and subgid mostly say the same
	for _, file := range []string{"etc/subuid", "etc/subgid"} {
		text, err := s.Read(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return probe.Unknown("%v", err)
		}
		for _, r := range parseIDRanges(text) {
			first, last := r.contexts()
			where := fmt.Sprintf("%d to %d", first, last)
			if first == last {
				where = strconv.Itoa(first)
			}
			if first > last || seen[r.user+where] {
				continue
			}
			seen[r.user+where] = true
			taken = append(taken, fmt.Sprintf("%s's ids are those of context %s", r.user, where))
			for name, xid := range guests {
				if first <= xid && xid <= last {
					bad = append(bad, fmt.Sprintf("%s has ids of guest %s (context %d)", r.user, name, xid))
				}
			}
		}
	}
	for machine, xid := range machines(s) {
		for name, guest := range guests {
			if guest == xid {
				bad = append(bad, fmt.Sprintf("%s of systemd-nspawn has ids of guest %s (context %d)", machine, name, xid))
			}
		}
	}
	if bad != nil {
		slices.Sort(bad)
		return probe.No("%s", strings.Join(bad, ", "))
	}
	return probe.Yes("%s", strings.Join(taken, ", "))
}

// machines returns the contexts whose IDs systemd-nspawn -U gave to a machine: it locks
// the first ID of a running machine, and the tree of a stopped one belongs to that ID.
func machines(s *probe.System) map[string]int {
	found := map[string]int{}
	add := func(machine string, uid uint64) {
		if xid := int(uid / procctx.IDs); xid >= api.MinContext && xid <= api.MaxContext {
			found[machine] = xid
		}
	}
	if locks, err := fs.ReadDir(s.Files, "run/systemd/nspawn-uid"); err == nil {
		for _, e := range locks {
			if uid, err := strconv.ParseUint(e.Name(), 10, 32); err == nil {
				add("a machine", uid)
			}
		}
	}
	if trees, err := fs.ReadDir(s.Files, "var/lib/machines"); err == nil {
		for _, e := range trees {
			info, err := e.Info()
			if err != nil {
				continue // has disappeared meanwhile
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				add("machine "+e.Name(), uint64(st.Uid))
			}
		}
	}
	return found
}

// contexts returns the contexts of the configured guests, by name.
func contexts(s *probe.System) (map[string]int, error) {
	const dir = "etc/vservers"
	entries, err := fs.ReadDir(s.Files, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	guests := map[string]int{}
	for _, e := range entries {
		text, err := s.Read(path.Join(dir, e.Name(), "context"))
		if err != nil {
			continue // .defaults, or a guest without a context as yet
		}
		if xid, err := strconv.Atoi(text); err == nil {
			guests[e.Name()] = xid
		}
	}
	return guests, nil
}
