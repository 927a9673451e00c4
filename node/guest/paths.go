package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Paths are the directories in which a host keeps its guests.
type Paths struct {
	ConfigDir string // /etc/vservers: one directory per guest
	DataDir   string // /var/lib/vservers
	RunDir    string // /run/vservers: locks, and files that are gone after a reboot
	LogDir    string // /var/log/vservers: consoles
	// UserDir is /run/userdb where systemd runs the host, which reads names of users
	// there; empty: nowhere.
	UserDir string
}

// DefaultPaths are those of design.md.
func DefaultPaths() Paths {
	p := Paths{
		ConfigDir: "/etc/vservers",
		DataDir:   "/var/lib/vservers",
		RunDir:    "/run/vservers",
		LogDir:    "/var/log/vservers",
	}
	if info, err := os.Stat("/run/systemd/system"); err == nil && info.IsDir() { // sd_booted(3)
		p.UserDir = "/run/userdb"
	}
	return p
}

// closeData makes the directory of all guests' data and keeps the host's users out:
// guests' trees hold setuid programs (CVE-2021-41091). It does so even if the directory
// exists.
func (p Paths) closeData() error {
	if err := os.MkdirAll(p.DataDir, 0o700); err != nil {
		return err
	}
	st, err := os.Stat(p.DataDir)
	if err != nil || st.Mode().Perm() == 0o700 {
		return err
	}
	return os.Chmod(p.DataDir, 0o700)
}

// writable returns an error if a directory cannot be written to, even by root.
func writable(dir string) error {
	err := unix.Access(dir, unix.W_OK)
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%s is on a filesystem that is mounted read-only: mount -o remount,rw it", dir)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

// Dir returns the directory of a guest's configuration.
func (p Paths) Dir(name string) string { return p.config(name) }

// Root returns the directory of a guest's own files.
func (p Paths) Root(name string) (string, error) { return p.vdir(name) }
func (p Paths) config(name string) string        { return filepath.Join(p.ConfigDir, name) }
func (p Paths) data(name string) string          { return filepath.Join(p.DataDir, name) }
func (p Paths) runFile(name string) string       { return filepath.Join(p.RunDir, name) }
func (p Paths) notesFile(name string) string     { return filepath.Join(p.RunDir, "."+name+".state") }
func (p Paths) lockFile(name string) string      { return filepath.Join(p.RunDir, "."+name+".lock") }
func (p Paths) consoleLog(name string) string    { return filepath.Join(p.LogDir, name+".log") }

// CheckName returns an error if name cannot be a guest's name. A name becomes a file, a
// cgroup and a word on command lines: no slash, no leading dot or dash.
func CheckName(name string) error {
	ok := len(name) > 0 && len(name) <= 63
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		ok = ok && (alnum || i > 0 && strings.ContainsRune("_.-", r))
	}
	if !ok {
		return fmt.Errorf("guest name %q: want a letter or digit, then letters, digits, '_', '.' or '-', 63 at most", name)
	}
	// The kernel's files are beside a guest's cgroup, and our locks beside its run
	// file.
	own := []string{"cgroup.", "cpu.", "cpuset.", "memory.", "io.", "pids.", "misc.", "rdma.", "hugetlb.", "irq.", "dmem."}
	if strings.HasSuffix(name, ".lock") || slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
		return fmt.Errorf("guest name %q: names of this kind are the kernel's or vsnode's own", name)
	}
	return nil
}

// lock takes the lock of a guest, or of all configurations (""). It waits for the
// present holder until ctx ends: a stop holds a guest's lock for as long as the guest
// takes to end.
func (p Paths) lock(ctx context.Context, name string) (*linux.Lock, error) {
	if err := os.MkdirAll(p.RunDir, 0o755); err != nil {
		return nil, err
	}
	l, err := linux.LockFile(ctx, p.lockFile(name))
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("another vsnode works on it: %w", ctx.Err())
	}
	return l, err
}

// tryLock takes the lock if it is free, and otherwise returns nil.
func (p Paths) tryLock(name string) (*linux.Lock, error) {
	if err := os.MkdirAll(p.RunDir, 0o755); err != nil {
		return nil, err
	}
	l, err := linux.TryLockFile(p.lockFile(name))
	if errors.Is(err, linux.ErrLocked) {
		return nil, nil
	}
	return l, err
}
