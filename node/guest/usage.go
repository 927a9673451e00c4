package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Usage is what a running guest uses of a limit, as its cgroup counts it; "-" where
// the host's cgroup has no such file.
type Usage struct {
	Resource                  string // util-vserver's name
	Current, Peak, Soft, Hard string // in bytes, or a number
	Hits                      string // how often the hard limit was met
}

// LimitFiles are the files of a cgroup by util-vserver's names of limits.
var LimitFiles = map[string]struct{ Soft, Hard string }{
	"nproc": {"", pidsFile},
	"rss":   {"memory.high", memoryFile},
	"swap":  {"memory.swap.high", "memory.swap.max"},
}

// Usage returns what a running guest uses of its limits.
func (h *Host) Usage(name string) ([]Usage, error) {
	v, err := h.look(name)
	if err != nil {
		return nil, fmt.Errorf("guest %s: %w", name, err)
	}
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join(string(v.cgroup), file))
		if file == "" || err != nil {
			return "-" // without the controller there is no file
		}
		return strings.TrimSpace(string(b))
	}
	event := func(file, name string) string {
		for line := range strings.Lines(read(file)) {
			if key, n, _ := strings.Cut(strings.TrimSpace(line), " "); key == name {
				return n
			}
		}
		return "-"
	}
	var all []Usage
	for _, r := range []struct{ resource, prefix string }{{"nproc", "pids"}, {"rss", "memory"}, {"swap", "memory.swap"}} {
		f := LimitFiles[r.resource]
		all = append(all, Usage{
			Resource: r.resource, Current: read(r.prefix + ".current"), Peak: read(r.prefix + ".peak"),
			Soft: read(f.Soft), Hard: read(f.Hard), Hits: event(r.prefix+".events", "max"),
		})
	}
	return all, nil
}

// SetLimit writes a file of a running guest's cgroup. The next start or apply writes
// what the configuration has.
func (h *Host) SetLimit(ctx context.Context, name, file, value string) error {
	return h.Hold(ctx, name, "limit", func(g *Guest) error {
		on, err := g.up(ctx)
		if err == nil && !on {
			err = ErrNotRunning
		}
		if err != nil {
			return err
		}
		return g.cgroup.Limit(g.mount, file, value)
	})
}
