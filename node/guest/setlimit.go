package guest

import "context"

// LimitFiles are the files of a cgroup by util-vserver's names of limits.
var LimitFiles = map[string]struct{ Soft, Hard string }{
	"nproc": {"", pidsFile},
	"rss":   {"memory.high", memoryFile},
	"swap":  {"memory.swap.high", "memory.swap.max"},
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
