package stat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/node/api"
)

// HostName is the name of context 0 in vserver-stat.
const HostName = "root server"

// Guest identifies a running guest to count.
type Guest struct {
	XID     int
	Name    string
	Cgroup  string    // path below the cgroup2 mount: "vservers/www"
	Started time.Time // zero: the start of its oldest process counts
}

// Read returns the counts of the host (row 0) and of the guests, sorted by context.
// A guest without processes is not running and has no row. The calling process is
// left out, as vserver-stat left itself out.
func Read(ctx context.Context, cgroupRoot string, guests []Guest) ([]api.StatRow, error) {
	// /proc is listed before the cgroups: a guest's process in this list is in its
	// cgroup's list as well, or has ended. The other way round, processes that a
	// guest forks in between would be counted as the host's.
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("count processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("count processes: %w", err)
	}

	rows := make([]row, len(guests)+1)
	rows[0].Name = HostName
	err = each(ctx, len(guests), func(r *reader, i int) error {
		rows[i+1].Context, rows[i+1].Name = guests[i].XID, guests[i].Name
		if err := r.guest(cgroupRoot, guests[i], &rows[i+1]); err != nil {
			return fmt.Errorf("count guest %s: %w", guests[i].Name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ownerOf := make(map[int]*row, len(names))
	for i := range rows {
		for _, pid := range rows[i].pids {
			ownerOf[pid] = &rows[i]
		}
	}

	self := os.Getpid()
	found := make([]struct {
		process
		pid int
	}, len(names))
	err = each(ctx, len(names), func(r *reader, i int) error {
		pid, err := strconv.Atoi(names[i])
		if err != nil || pid == self {
			return nil
		}
		p, err := r.process(int(proc.Fd()), names[i])
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("count process %d: %w", pid, err)
		}
		found[i].process, found[i].pid = p, pid
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, p := range found {
		if p.pid == 0 {
			continue
		}
		owner := ownerOf[p.pid]
		if owner == nil {
			owner = &rows[0]
		}
		owner.add(p.process)
	}
	return finish(rows, guests)
}

// each calls do for each i below n, on all processors.
func each(ctx context.Context, n int, do func(r *reader, i int) error) error {
	var next atomic.Int64
	var group errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			r := reader{buf: make([]byte, 64<<10)}
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := do(&r, i); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// finish computes the uptimes and leaves out guests that do not run.
func finish(rows []row, guests []Guest) ([]api.StatRow, error) {
	boot, now := linux.SinceBoot(), time.Now() // start times in /proc count from boot
	out := make([]api.StatRow, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		if i > 0 && r.Processes == 0 {
			continue
		}
		if i > 0 && !guests[i-1].Started.IsZero() {
			r.Uptime = now.Sub(guests[i-1].Started)
		} else if r.Processes > 0 {
			r.Uptime = boot - r.oldest
		}
		r.Uptime = max(r.Uptime, 0) // the clock was set back
		out = append(out, r.StatRow)
	}
	order.Func(out, func(a, b api.StatRow) int { return a.Context - b.Context })
	return out, nil
}

// A row is a line of the result while it is being counted.
type row struct {
	api.StatRow
	oldest  time.Duration // after boot
	cpuStat bool          // User and Sys come from the cgroup's cpu.stat
	pids    []int         // processes of the cgroup
}

func (r *row) add(p process) {
	if r.Processes == 0 || p.start < r.oldest {
		r.oldest = p.start
	}
	r.Processes++
	r.VSZ += p.vsz
	r.RSS += p.rss
	if !r.cpuStat {
		r.User += p.user
		r.Sys += p.sys
	}
}

// A reader reads small files of the kernel into one buffer. It serves one goroutine.
type reader struct{ buf []byte }

// guest records the guest's processes and its processor time. The guest chooses the
// names of cgroups below its own, but cgroupfs has no links.
func (r *reader) guest(root string, g Guest, to *row) error {
	dir, err := unix.Open(root+"/"+g.Cgroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil // it has just been stopped
	}
	if err != nil {
		return fmt.Errorf("open cgroup %s: %w", g.Cgroup, err)
	}
	defer unix.Close(dir)

	stat, err := r.file(dir, "cpu.stat")
	if err == nil {
		to.User, to.Sys, to.cpuStat = parseCPUStat(stat)
	} else if !gone(err) {
		return fmt.Errorf("read cpu.stat of cgroup %s: %w", g.Cgroup, err)
	}
	return r.members(dir, to)
}

// members records the processes of a cgroup and of those below it.
func (r *reader) members(dir int, to *row) error {
	procs, err := r.file(dir, "cgroup.procs")
	switch {
	case err == unix.EOPNOTSUPP: // a threaded cgroup: its domain lists the processes
	case gone(err):
		return nil
	case err != nil:
		return fmt.Errorf("read cgroup.procs: %w", err)
	}
	for line := range bytes.Lines(procs) {
		if pid, ok := number(bytes.TrimSpace(line)); ok && pid > 0 { // 0: not in our pid namespace
			to.pids = append(to.pids, int(pid))
		}
	}

	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return fmt.Errorf("stat cgroup: %w", err)
	}
	if st.Nlink <= 2 { // no cgroup below: skip reading a directory of forty files
		return nil
	}
	names, err := directories(dir)
	if err != nil {
		return fmt.Errorf("list cgroup: %w", err)
	}
	for _, name := range names {
		sub, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fmt.Errorf("open cgroup %s: %w", name, err)
		}
		err = r.members(sub, to)
		unix.Close(sub)
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", name, err)
		}
	}
	return nil
}

// directories lists the directories in an open one.
func directories(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (r *reader) process(proc int, pid string) (process, error) {
	b, err := r.file(proc, pid+"/stat")
	if err != nil {
		return process{}, err
	}
	p, err := parseStat(b)
	if err == nil && p.zombie {
		// A zombie has no memory, its time is added to its parent's once it is reaped,
		// and one of a guest would count as the host's, since cgroup.procs omits it.
		return process{}, unix.ESRCH
	}
	return p, err
}

// file reads a whole file. The bytes are valid until the next call.
func (r *reader) file(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n := 0
	for {
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		m, err := unix.Read(fd, r.buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		n += m
		if m == 0 { // a short read is not the end: the kernel returns lists a page at a time
			return r.buf[:n], nil
		}
	}
}

// gone reports whether err means that the cgroup was removed while it was read.
func gone(err error) bool { return err == unix.ENOENT || err == unix.ENODEV }
