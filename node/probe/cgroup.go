package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

func (s *System) mounts() ([]linux.Mount, error) {
	text, err := s.Read("proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	return linux.ParseMounts(text)
}

var errNoCgroup2 = errors.New("cgroup v2 is not mounted")

// cgroupRoot finds where cgroup v2 is mounted, and whether v1 is too.
func (s *System) cgroupRoot() (dir string, hybrid bool, err error) {
	mounts, err := s.mounts()
	if err != nil {
		return "", false, err
	}
	hybrid = slices.ContainsFunc(mounts, func(m linux.Mount) bool { return m.FSType == "cgroup" })
	dir, err = cgroup.MountIn(mounts)
	if errors.Is(err, cgroup.ErrNotMounted) {
		err = errNoCgroup2 // check prints the cure beside it
	}
	return dir, hybrid, err
}

func cgroup2(s *System) Answer {
	dir, hybrid, err := s.cgroupRoot()
	switch {
	case errors.Is(err, errNoCgroup2) && hybrid:
		return No("only cgroup v1 is mounted")
	case errors.Is(err, errNoCgroup2):
		return No("it is not mounted").WithCure("mount -t cgroup2 none /sys/fs/cgroup")
	case err != nil:
		return Unknown("%v", err)
	case hybrid:
		return Yes("%s, beside cgroup v1", dir)
	}
	return Yes("%s", dir)
}

// controllers looks where each controller is that a limit needs: one that lies
// on cgroup v1 cannot be used from v2.
func controllers(s *System) Answer {
	root, _, err := s.cgroupRoot()
	if errors.Is(err, errNoCgroup2) {
		return No("%v", err)
	}
	if err != nil {
		return Unknown("%v", err)
	}
	text, err := s.Read(strings.TrimPrefix(root, "/") + "/cgroup.controllers")
	if err != nil {
		return Unknown("%v", err)
	}
	mounts, err := s.mounts()
	if err != nil {
		return Unknown("%v", err)
	}
	have := strings.Fields(text)
	var missing []string
	onV1 := false
	for _, want := range []string{"cpu", "memory", "pids"} {
		if slices.Contains(have, want) {
			continue
		}
		where := want + " is not in the kernel"
		for _, m := range mounts {
			if m.FSType == "cgroup" && slices.Contains(m.Options, want) {
				where, onV1 = want+" is on cgroup v1", true
			}
		}
		// A container or a practice host does not see the v1 mounts of its machine.
		if table, err := s.Read("proc/cgroups"); err == nil && onHierarchy(table, want) {
			where, onV1 = want+" is on cgroup v1", true
		}
		missing = append(missing, where)
	}
	switch {
	case missing == nil:
		return Yes("cpu, memory, pids")
	case onV1:
		return No("%s", strings.Join(missing, ", "))
	}
	return No("%s", strings.Join(missing, ", ")).WithCure("boot without cgroup_disable=, with cgroup_enable=memory where that is needed")
}

// onHierarchy reads /proc/cgroups (cgroups(7)): a controller on a hierarchy of
// version 1 has its number there, one of version 2 or of none has 0.
func onHierarchy(table, controller string) bool {
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == controller {
			return f[1] != "0"
		}
	}
	return false
}

const leftover = ".vsnode-check-"

// scratch makes a directory that says whose it is.
func scratch(dir string) (string, error) {
	return os.MkdirTemp(dir, fmt.Sprintf("%s%d-", leftover, os.Getpid()))
}

// inCgroup calls f with a fresh cgroup, which is removed afterwards.
func (s *System) inCgroup(f func(fd int) error) Answer {
	root, _, err := s.cgroupRoot()
	if err != nil { // without cgroup v2 too: what it could do there, no one can tell
		return Unknown("%v", err)
	}
	dir, err := scratch(root)
	if err != nil {
		return Tried(fmt.Errorf("make a cgroup: %w", err))
	}
	err = func() error {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return f(fd)
	}()
	if rerr := unix.Rmdir(dir); err == nil && rerr != nil {
		err = fmt.Errorf("remove cgroup %s: %w", dir, rerr)
	}
	return Tried(err)
}

// RemoveLeftovers removes what probes left that were killed.
func (s *System) RemoveLeftovers() {
	dirs := []string{s.DataDir()}
	if root, _, err := s.cgroupRoot(); err == nil {
		dirs = append(dirs, root)
	}
	for _, dir := range dirs {
		old, _ := filepath.Glob(dir + "/" + leftover + "*") // errs on bad patterns only
		for _, path := range old {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), leftover), "-")
			if _, err := os.Stat("/proc/" + pid); !errors.Is(err, fs.ErrNotExist) {
				continue // that process still runs
			}
			// One that cannot be removed harms nobody, and probes must go on.
			_ = os.RemoveAll(path)
		}
	}
}

func cgroupKill(s *System) Answer {
	return s.inCgroup(func(fd int) error {
		err := unix.Faccessat(fd, "cgroup.kill", unix.W_OK, 0)
		if err == unix.ENOENT {
			return unix.ENOSYS
		}
		return err
	})
}

// cgroupBPF loads a program that allows everything and attaches it to a fresh
// cgroup: loading alone does not need CONFIG_CGROUP_BPF.
func cgroupBPF(s *System) Answer {
	const where = ebpf.AttachCGroupInet4Bind
	return s.inCgroup(func(fd int) error {
		prog, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
			Type:       ebpf.CGroupSockAddr,
			AttachType: where,
			Instructions: asm.Instructions{
				asm.Mov.Imm(asm.R0, 1),
				asm.Return(),
			},
			License: "Apache-2.0",
		}, ebpf.ProgramOptions{LogDisabled: true})
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		defer prog.Close()
		if err := bpf.Attach(fd, bpf.FD(prog.FD()), uint32(where)); err != nil {
			return fmt.Errorf("attach: %w", err) // it goes with the cgroup
		}
		return nil
	})
}

func bpffs(s *System) Answer {
	mounts, err := s.mounts()
	if err != nil {
		return Unknown("%v", err)
	}
	for _, m := range mounts {
		if m.FSType == "bpf" {
			return Yes("%s", m.Dir)
		}
	}
	known, err := s.Read("proc/filesystems")
	if err != nil {
		return Unknown("%v", err)
	}
	if slices.Contains(strings.Fields(known), "bpf") {
		return Yes("not mounted; vsnode mounts it")
	}
	return No("the kernel does not have it")
}
