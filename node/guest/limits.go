package guest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/vsyntax"
	"github.com/vsfleet/vsfleet/node/api"
)

// resources maps util-vserver's names to the resources of setrlimit(2).
var resources = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// readUlimits reads ulimits/RESOURCE, RESOURCE.soft and RESOURCE.hard: limits of
// each process of the guest. If only the soft or only the hard limit is given, the
// other one is infinite, as in util-vserver.
func readUlimits(t *tree) (map[int]unix.Rlimit, error) {
	limits := map[int]unix.Rlimit{}
	for _, name := range t.names("ulimits") {
		file := "ulimits/" + name
		what, half, _ := strings.Cut(name, ".")
		resource, ok := resources[what]
		if !ok || half != "" && half != "soft" && half != "hard" {
			return nil, fmt.Errorf("%s: want a resource of %s, or .soft or .hard behind it", file, strings.Join(slices.Sorted(maps.Keys(resources)), ", "))
		}
		n, err := vsyntax.Limit(t.scalar(file))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if resource == unix.RLIMIT_NOFILE {
			n = min(n, setting.MaxOpenFiles)
		}
		l, given := limits[resource]
		if !given {
			l = unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
			if resource == unix.RLIMIT_NOFILE {
				l = unix.Rlimit{Cur: setting.MaxOpenFiles, Max: setting.MaxOpenFiles}
			}
		}
		if half != "hard" {
			l.Cur = n
		}
		if half != "soft" {
			l.Max = n
		}
		limits[resource] = l
	}
	for resource, l := range limits {
		l.Cur = min(l.Cur, l.Max)
		limits[resource] = l
	}
	return limits, nil
}

// ulimits returns the limits of each process as a setting, in order.
func ulimits(limits map[int]unix.Rlimit) (list []setting.Ulimit) {
	for _, name := range setting.Resources {
		if l, given := limits[resources[name]]; given {
			list = append(list, setting.Ulimit{Resource: name, Soft: l.Cur, Hard: l.Max})
		}
	}
	return list
}

// readIONice reads ionice/class, a number or a name, and ionice/priority. Without a
// class it is best-effort, as in util-vserver.
func (c *Config) readIONice(t *tree) (err error) {
	class, level := t.scalar("ionice/class"), t.scalar("ionice/priority")
	if class == "" && level == "" {
		return nil
	}
	if class == "0" || class == "none" {
		return nil
	}
	name := map[string]string{"": "best-effort", "1": "realtime", "2": "best-effort", "3": "idle"}[class]
	if name == "" && strings.Trim(class, "0123456789") == "" {
		return fmt.Errorf("ionice/class: want 1 (realtime), 2 (best-effort) or 3 (idle), have %q", class)
	}
	text := cmp.Or(name, class)
	if level != "" && text != "idle" { // idle has no levels, and util-vserver ignores one
		text += ":" + level
	}
	if c.Guest.IONice, err = setting.ParseIONice(text); err != nil {
		return fmt.Errorf("ionice/class, ionice/priority: %w", err)
	}
	return nil
}

// ioNiceFiles returns the contents of the two files.
func ioNiceFiles(n setting.IONice) map[string]string {
	files := map[string]string{"ionice/class": "", "ionice/priority": ""}
	if n.Class != 0 {
		files["ionice/class"] = strconv.Itoa(n.Class) + "\n"
	}
	if n.Class == 1 || n.Class == 2 {
		files["ionice/priority"] = strconv.Itoa(n.Level) + "\n"
	}
	return files
}

// setAttributes sets what the guest's processes inherit.
func (c *Config) setAttributes() {
	const class = 13 // IOPRIO_CLASS_SHIFT
	c.Attributes.Nice, c.Attributes.OOMScoreAdj = c.Guest.Nice, c.Guest.OOMScoreAdj
	c.IOPriority = c.IONice.Class<<class | c.IONice.Level
}

// readRlimits translates the limits of a context that cgroup v2 has as well:
// processes, and resident memory in pages.
func readRlimits(t *tree, cgroup map[string]string) error {
	for _, name := range t.names("rlimits") {
		file, unit := "", uint64(1)
		switch name {
		case "nproc", "nproc.hard":
			file = pidsFile
		case "rss", "rss.hard":
			file, unit = memoryFile, uint64(os.Getpagesize())
		case "rss.soft":
			file, unit = "memory.high", uint64(os.Getpagesize())
		default:
			continue // knownFiles has it
		}
		n, err := vsyntax.Limit(t.scalar("rlimits/" + name))
		if err != nil {
			return fmt.Errorf("rlimits/%s: %w", name, err)
		}
		if _, given := cgroup[file]; given || n == unix.RLIM_INFINITY {
			continue // cgroup/ takes precedence
		}
		if n > math.MaxInt64/unit {
			return fmt.Errorf("rlimits/%s: %d is too large", name, n)
		}
		cgroup[file] = strconv.FormatUint(n*unit, 10)
	}
	return nil
}

// fromCgroup1 translates files of cgroup v1 into those of v2, which take precedence,
// and returns the files that have no equivalent in v2.
func fromCgroup1(cgroup map[string]string) (list []api.Unread, err error) {
	put := func(file, value string) {
		if _, given := cgroup[file]; !given {
			cgroup[file] = value
		}
	}
	// scaled converts a weight of v1 to one of v2 (1 to 10000), as systemd does.
	scaled := func(file string, n, from, to, base int64) {
		put(file, strconv.FormatInt(base+(min(max(n, from), to)-from)*(10000-base)/(to-from), 10))
	}
	for _, file := range slices.Sorted(maps.Keys(cgroup)) {
		value := cgroup[file]
		no := func(why string) { list = append(list, api.Unread{File: "cgroup/" + file, Why: why, Refuses: true}) }
		number := func() (n int64) {
			if n, err = strconv.ParseInt(value, 10, 64); err != nil {
				err = fmt.Errorf("cgroup/%s: want a number, not %q", file, value)
			}
			return n
		}
		switch {
		case file == "memory.limit_in_bytes":
			if value == "-1" {
				value = "max"
			}
			put(memoryFile, value)
		case file == "cpu.shares":
			scaled("cpu.weight", number(), 2, 262144, 1)
		case file == "cpu.cfs_quota_us":
			period := int64(cpuPeriod)
			quota := number()
			if p, given := cgroup["cpu.cfs_period_us"]; given && err == nil {
				if period, err = strconv.ParseInt(p, 10, 64); err != nil {
					err = fmt.Errorf("cgroup/cpu.cfs_period_us: want a number, not %q", p)
				}
			}
			if quota > 0 {
				put(cpuFile, fmt.Sprintf("%d %d", quota, period))
			}
		case file == "cpu.cfs_period_us": // read with the quota
		case file == "blkio.weight":
			scaled("io.weight", number(), 10, 1000, 1)
		case file == "memory.memsw.limit_in_bytes", file == "memory.kmem.limit_in_bytes":
			no("of cgroup v1: use cgroup/memory.max, which counts kernel memory too, and cgroup/memory.swap.max for swap alone")
		case file == "memory.soft_limit_in_bytes":
			no("of cgroup v1: use cgroup/memory.high to slow the guest down above a size, cgroup/memory.low to leave it one")
		case strings.HasPrefix(file, "blkio."):
			no("of cgroup v1: use cgroup/io.max, io.weight or io.latency")
		case strings.HasPrefix(file, "devices."):
			no("of cgroup v1: apps/vdevmap has the devices that a guest may use")
		case strings.HasPrefix(file, "cpu.cfs_"), strings.HasPrefix(file, "cpu.rt_"), strings.HasPrefix(file, "cpuacct."),
			strings.HasPrefix(file, "memory.") && strings.HasSuffix(file, "_in_bytes"),
			strings.HasPrefix(file, "net_cls."), strings.HasPrefix(file, "net_prio."), strings.HasPrefix(file, "freezer."),
			file == "memory.swappiness", file == "memory.oom_control", file == "memory.use_hierarchy", file == "tasks", file == "notify_on_release":
			no("of cgroup v1, and cgroup v2 has nothing like it")
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		delete(cgroup, file)
	}
	return list, nil
}
