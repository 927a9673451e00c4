package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Limit writes one file of the cgroup, as memory.max. The controller that the
// file belongs to is switched on for guests first.
func (c Dir) Limit(mount, file, value string) error {
	controller, _, _ := strings.Cut(file, ".")
	if controller == "cgroup" {
		return fmt.Errorf("cgroup/%s is vsnode's own", file)
	}
	if strings.Contains(file, "/") { // another cgroup's
		return fmt.Errorf("limit %s=%s: want a file of the cgroup, without /", file, value)
	}
	have, err := HasController(mount, controller)
	if err != nil {
		return err
	}
	if !have {
		return fmt.Errorf("limit %s=%s: controller %q is not in cgroup v2 on this host (it may be on cgroup v1: boot with cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1)", file, value, controller)
	}
	above := []string{mount, filepath.Dir(string(c))}
	if c.IsInUnit() {
		above = above[1:] // down to the unit they are systemd's, which hands over all (Delegate=)
	}
	for _, dir := range above {
		if err := linux.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("limit %s=%s: switch on controller %s: %w", file, value, controller, err)
		}
	}
	// Not created: a misspelt name would be "permission denied".
	f, err := linux.Open(filepath.Join(string(c), file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("limit %s=%s: %w", file, value, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("limit %s=%s: %w", file, value, err)
	}
	if (file == "memory.low" || file == "memory.min") && !c.IsInUnit() { // the slice is systemd's
		if err := protect(filepath.Dir(string(c)), file); err != nil {
			return fmt.Errorf("limit %s=%s: %w", file, value, err)
		}
	}
	return nil
}

// protect has the cgroup above those of guests keep as much memory as they do together: the
// kernel protects no more of a cgroup than of the one above it. It looks again, since other
// guests may start meanwhile.
func protect(above, file string) error {
	for last := ""; ; {
		sum, err := protected(above, file)
		if err != nil || sum == last {
			return err
		}
		if err := linux.WriteFile(filepath.Join(above, file), []byte(sum), 0); err != nil {
			return err
		}
		last = sum
	}
}

// protected returns what the cgroups below above have in file, together.
func protected(above, file string) (string, error) {
	found, err := filepath.Glob(filepath.Join(above, "*", file))
	if err != nil {
		return "", err
	}
	sum := uint64(0)
	for _, path := range found {
		b, err := linux.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue // that guest has ended
		}
		if err != nil {
			return "", err
		}
		text := strings.TrimSpace(string(b))
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n > math.MaxInt64-sum { // "max"
			return "max", nil
		}
		sum += n
	}
	return strconv.FormatUint(sum, 10), nil
}
