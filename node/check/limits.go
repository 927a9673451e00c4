package check

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/probe"
	"github.com/vsfleet/vsfleet/node/quota"
)

// kernelLimits checks the limits that all guests share with the host, and those that
// each guest has to itself: its user namespace belongs to its own root, whom the kernel
// counts separately (user_namespaces(7)). Keyrings are not among them, as seccomp
// denies them to guests.
func kernelLimits(s *probe.System) probe.Answer {
	var low, cures []string
	values := map[string]int{}
	for _, l := range []struct {
		name       string
		min, value int
	}{
		// Shared: some 40 processes per guest with systemd, and a few terminals.
		{"kernel.pid_max", 65536, 4194304},
		{"kernel.threads-max", 32768, 262144},
		{"kernel.pty.max", 2048, 16384},
		// Per guest: some 10 instances with systemd, and 3 more for each of its users.
		{"fs.inotify.max_user_instances", 128, 1024},
		{"fs.inotify.max_user_watches", 8192, 1048576},
	} {
		text, err := s.Read("proc/sys/" + strings.ReplaceAll(l.name, ".", "/"))
		if err != nil {
			return probe.Unknown("%v", err)
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return probe.Unknown("%s is %q", l.name, text)
		}
		values[l.name] = n
		if n < l.min {
			low = append(low, fmt.Sprintf("%s is %d", l.name, n))
			cures = append(cures, fmt.Sprintf("%s=%d", l.name, l.value))
		}
	}
	if low != nil {
		return probe.No("%s", strings.Join(low, ", ")).WithCure("sysctl -w %s", strings.Join(cures, " "))
	}
	return probe.Yes("%d processes and %d terminals for all, %d inotify instances for each guest",
		min(values["kernel.pid_max"], values["kernel.threads-max"]), values["kernel.pty.max"], values["fs.inotify.max_user_instances"])
}

// diskLimits looks whether the filesystem of guests' files bounds projects.
func diskLimits(s *probe.System) probe.Answer {
	err := quota.Able(s.DataDir())
	var unable *quota.Unable
	switch {
	case errors.As(err, &unable):
		return probe.No("%s", unable.Why).WithCure("%s", unable.Cure)
	case err != nil:
		return probe.Unknown("%v", err)
	}
	return probe.Yes("project quotas in %s", s.DataDir())
}

func freeSpace(s *probe.System) probe.Answer {
	dir := s.DataDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return probe.Unknown("%s: %v", dir, err)
	}
	return roomFor(dir, st.Bavail*uint64(st.Bsize), st.Ffree, st.Files)
}

// roomFor rates free bytes and inodes; filesystems that make inodes as needed report 0
// of 0.
func roomFor(dir string, bytes, inodes, allInodes uint64) probe.Answer {
	const gib = 1 << 30
	text := fmt.Sprintf("%.1f GiB in %s", float64(bytes)/gib, dir)
	switch {
	case bytes < 2*gib:
		return probe.No("only %s", text)
	case allInodes > 0 && inodes < 100_000: // a Debian is some 20,000 files
		return probe.No("only %d more files in %s", inodes, dir)
	}
	return probe.Yes("%s", text)
}
