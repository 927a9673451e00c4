package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

const ioFile = "io.max"

// limitLines returns what is written to a file of the guest's cgroup, one write for
// each line. In io.max, disks are named as an administrator names them; the kernel
// wants their numbers, which may change at a reboot.
func limitLines(file, content, root string) (lines []string, err error) {
	lines = strings.Split(content, "\n")
	if file != ioFile {
		return lines, nil
	}
	for i, line := range lines {
		l, err := setting.ParseIO(line)
		if err != nil {
			continue // the kernel's own words, which an administrator wrote: it has the error
		}
		device, err := diskOf(l.Device, root)
		if err != nil {
			return nil, fmt.Errorf("limit io of %s: %w", l.Device, err)
		}
		lines[i] = l.Line(device)
	}
	return lines, nil
}

// diskOf returns the number of a disk: of a path, of "root", which has the guest's own
// files, or a number itself. The kernel limits whole disks, so that for a partition it
// is the disk's.
func diskOf(device, root string) (string, error) {
	var st unix.Stat_t
	number := uint64(0)
	switch {
	case device == "root":
		if err := unix.Stat(root, &st); err != nil {
			return "", fmt.Errorf("%s: %w", root, err)
		}
		if number = st.Dev; unix.Major(number) == 0 {
			return "", fmt.Errorf("the filesystem of %s is on no single disk (btrfs, zfs, tmpfs): name the disks, as /dev/sda", root)
		}
	case strings.HasPrefix(device, "/"):
		if err := unix.Stat(device, &st); err != nil {
			return "", fmt.Errorf("%s: %w", device, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return "", fmt.Errorf("%s is not a disk (block device)", device)
		}
		number = st.Rdev
	default:
		return device, nil
	}
	name := fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
	dir, err := filepath.EvalSymlinks("/sys/dev/block/" + name)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir + "/partition"); err != nil {
		return name, nil
	}
	b, err := linux.ReadFile(filepath.Dir(dir) + "/dev")
	return strings.TrimSpace(string(b)), err
}

// limitFile writes the content of a file of the guest's cgroup. "" lifts the limit.
func (g *Guest) limitFile(row *setting.Row, content, root string) error {
	file := row.CgroupFile()
	if content == "" {
		return g.lift(row)
	}
	if file == ioFile {
		if err := g.lift(row); err != nil { // of the disks that are no longer named
			return err
		}
	}
	lines, err := limitLines(file, content, root)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if err := g.cgroup.Limit(g.mount, file, line); err != nil {
			return err
		}
	}
	return nil
}

// lift lifts a limit of a running guest.
func (g *Guest) lift(row *setting.Row) error {
	file := row.CgroupFile()
	now, err := linux.ReadFile(filepath.Join(string(g.cgroup), file))
	if err != nil {
		return nil // the controller was never enabled: there is no limit to lift
	}
	off := row.Off
	if off == "" {
		off = "max"
	}
	if file != ioFile {
		return g.cgroup.Limit(g.mount, file, off)
	}
	for line := range strings.Lines(string(now)) {
		device, _, _ := strings.Cut(line, " ")
		if err := g.cgroup.Limit(g.mount, file, setting.IOLimit{}.Line(device)); err != nil {
			return err
		}
	}
	return nil
}

// missing returns the lines of a limit that a file of a cgroup does not have.
func missing(cg cgroup.Dir, l limit) (now string, lost bool, err error) {
	b, err := linux.ReadFile(filepath.Join(string(cg), l.file))
	if err != nil {
		return "", false, err
	}
	now = strings.TrimSpace(string(b))
	have := strings.Split(now, "\n")
	for line := range strings.SplitSeq(l.value, "\n") {
		if !slices.Contains(have, line) && !slices.Contains(have, "default "+line) {
			return strings.ReplaceAll(now, "\n", ", "), true, nil
		}
	}
	return now, false, nil
}

var errNoAttributes = errors.New("it was started by an older vsnode, which noted no limits of its processes: restart it")
