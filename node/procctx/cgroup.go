package procctx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup2 means that no cgroup v2 hierarchy is mounted.
var ErrNoCgroup2 = errors.New("no cgroup v2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup)")

// CgroupMount finds the cgroup v2 hierarchy: /sys/fs/cgroup, on hybrid hosts
// /sys/fs/cgroup/unified, or wherever it is mounted.
func CgroupMount() (string, error) {
	var st unix.Statfs_t
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 36 35 98:0 /root /where options - type source superoptions (proc_pid_mountinfo(5))
		before, after, _ := strings.Cut(sc.Text(), " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", ErrNoCgroup2
}

// Cgroup is the directory of one guest's cgroup.
type Cgroup string

// GuestCgroup names the cgroup of a guest; it need not exist.
func GuestCgroup(mount, name string) Cgroup {
	return Cgroup(filepath.Join(mount, "vservers", name))
}

// Make makes the cgroup afresh and gives the guest's root what it needs to
// divide it further (cgroups(7), "delegation"): the limits stay the host's.
// An old one is removed first: programs attached to it would run before ours.
func (c Cgroup) Make(xid int) (*os.File, error) {
	if err := c.Remove(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(string(c), 0o755); err != nil {
		return nil, err
	}
	// What a guest makes below has to be walked: 12 levels are more than systemd
	// and containers in it make, and 12 names of 255 characters are a path that fits.
	for name, most := range map[string]string{"cgroup.max.depth": "12", "cgroup.max.descendants": "10000"} {
		if err := os.WriteFile(filepath.Join(string(c), name), []byte(most), 0); err != nil {
			return nil, fmt.Errorf("bound the guest's cgroups: %w", err)
		}
	}
	for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
		if err := os.Chown(filepath.Join(string(c), name), BaseID(xid), BaseID(xid)); err != nil {
			return nil, fmt.Errorf("delegate cgroup: %w", err)
		}
	}
	return os.Open(string(c))
}

// Populated says whether any process is in the cgroup or below: what "running"
// means. A cgroup that does not exist is not populated.
func (c Cgroup) Populated() (bool, error) {
	b, err := os.ReadFile(filepath.Join(string(c), "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return strings.Contains(string(b), "populated 1"), nil
}

// Context is the context of a guest by its cgroup, which belongs to the guest's
// root, or to another of its ids if it gave it away. fs.ErrNotExist: there is none.
func (c Cgroup) Context() (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(string(c), &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: string(c), Err: err}
	}
	return int(st.Uid) / IDs, nil
}

// GuestCgroups names the cgroups of guests that are there, running or not.
func GuestCgroups(mount string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(mount, "vservers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// Remove removes the empty cgroup and those below it, deepest first. The
// kernel may hold a cgroup for a moment after its last process was reaped.
func (c Cgroup) Remove() error {
	for deadline := time.Now().Add(2 * time.Second); ; {
		err := removeTree(string(c))
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if full, perr := c.Populated(); perr != nil || full {
			return fmt.Errorf("remove cgroup %s: processes are still in it", c)
		}
		unix.Poll(nil, 1)
	}
}

func removeTree(dir string) error {
	// Most are leaves: try before looking.
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, rerr := os.ReadDir(dir)
	if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		return rerr
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// PIDs lists the processes in the cgroup and below, those of the guest's own
// root cgroup first.
func (c Cgroup) PIDs() ([]int, error) {
	var pids []int
	err := c.walk(func(dir string) error {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return err
	})
	return pids, err
}

// walk calls f for the cgroup and all below it. That one of them is gone is no
// error, nor is what a threaded cgroup does not support: its domain does.
func (c Cgroup) walk(f func(dir string) error) error {
	over := func(err error) bool {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP)
	}
	var st unix.Stat_t
	if err := unix.Stat(string(c), &st); err != nil || st.Nlink <= 2 { // most have none below: its files need not be listed
		if err == nil {
			err = f(string(c))
		}
		if over(err) {
			return nil
		}
		return err
	}
	return filepath.WalkDir(string(c), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = f(path)
		}
		if over(err) {
			return nil
		}
		return err
	})
}

// Init finds process 1 of a running guest: the process in the cgroup whose
// innermost pid is 1, one pid namespace below ours. 0: there is none.
func (c Cgroup) Init() (int, error) {
	pids, err := c.PIDs()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		b, err := os.ReadFile(procFile(pid, "status"))
		if err != nil {
			continue // ended meanwhile
		}
		_, rest, _ := strings.Cut(string(b), "\nNSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		if f := strings.Fields(line); len(f) == 2 && f[1] == "1" {
			return pid, nil
		}
	}
	return 0, nil
}

// HasController reports whether a controller can be used below a cgroup v2 mount:
// whether it is neither left out of the kernel nor on cgroup v1.
func HasController(mount, name string) (bool, error) {
	have, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	return slices.Contains(strings.Fields(string(have)), name), err
}

// Limit writes one file of the cgroup, as memory.max. The controller that the
// file belongs to is switched on for guests first.
func (c Cgroup) Limit(mount, file, value string) error {
	controller, _, _ := strings.Cut(file, ".")
	if controller == "cgroup" {
		return fmt.Errorf("cgroup/%s is vsnode's own", file)
	}
	have, err := HasController(mount, controller)
	if err != nil {
		return err
	}
	if !have {
		return fmt.Errorf("limit %s=%s: controller %q is not in cgroup v2 on this host (it may sit on cgroup v1: boot with systemd.unified_cgroup_hierarchy=1)", file, value, controller)
	}
	for _, dir := range []string{mount, filepath.Dir(string(c))} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("limit %s=%s: switch on controller %s: %w", file, value, controller, err)
		}
	}
	// Not created: a misspelt name would be "permission denied".
	f, err := os.OpenFile(filepath.Join(string(c), file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("limit %s=%s: %w", file, value, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("limit %s=%s: %w", file, value, err)
	}
	return nil
}

// Settle waits until a guest whose vsnode was killed while starting it either
// runs its own program or is gone: its first process notices by itself. It
// says which.
func (c Cgroup) Settle(ctx context.Context) (runs bool, err error) {
	for {
		if full, err := c.Populated(); err != nil || !full {
			return false, err
		}
		pid, err := c.Init()
		if err != nil {
			return false, err
		}
		if pid != 0 && !unborn(pid) {
			return true, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		unix.Poll(nil, 1)
	}
}

// SinceBoot is the time since the host's boot, sleep included. No setting of the
// clock changes it.
func SinceBoot() time.Duration {
	var boot unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) // never fails for a clock that the kernel has (2.6.39)
	return time.Duration(boot.Nano())
}

// Born is when a process was forked, in time since the host's boot.
func Born(pid int) (time.Duration, error) {
	b, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return 0, err
	}
	// starttime, the 22nd field, in hundredths of a second; the third comes after the name.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return 0, fmt.Errorf("%s is not as proc_pid_stat(5) says", procFile(pid, "stat"))
	}
	ticks, err := strconv.ParseInt(f[19], 10, 64)
	return time.Duration(ticks) * time.Second / 100, err
}

// unborn says whether a process has not called execve since it was forked:
// PF_FORKNOEXEC among the flags of /proc/PID/stat (proc_pid_stat(5)).
func unborn(pid int) bool {
	b, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return true // gone; Populated tells
	}
	// The name in parentheses may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 7 {
		return true
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	const forkNoExec = 0x40
	return err == nil && flags&forkNoExec != 0
}
