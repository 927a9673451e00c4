package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/cgroup"
)

// The machine is this program again, in a cgroup, a network and a mount
// namespace of its own. It keeps the pid namespace: process 1 has to reap what
// a runtime leaves behind.
//
// A cgroup namespace whose hierarchy is mounted on /sys/fs/cgroup is a pure
// cgroup v2 machine also where the real one is hybrid, with a version 1
// hierarchy for each controller: crun and runc would make a cgroup in each of
// them, and crun 1.8 refuses such a machine altogether.

const (
	stageVar = "VSFLEET_BENCH_STAGE"
	dirVar   = "VSFLEET_BENCH_DIR" // on the disk, for what must not be in memory
	address  = "198.51.100.1/24"   // of the machine's eth0
	home     = "/run/home"         // of its root
)

// enterMachine reports whether this process is inside. If not, the whole run is over
// and cleaned up.
func enterMachine(ctx context.Context) (inside bool, err error) {
	switch os.Getenv(stageVar) {
	case "":
		return false, runMachine(ctx)
	case "namespaces":
		return false, prepareMachine(os.Getenv(dirVar))
	}
	return true, nil
}

func runMachine(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	mount, err := cgroup.Mount()
	if err != nil {
		return err
	}
	cg := cgroup.Dir(filepath.Join(mount, "vsfleet-bench-"+strconv.Itoa(os.Getpid())))
	if err := os.Mkdir(string(cg), 0o755); err != nil {
		return err
	}
	defer func() {
		bg := context.WithoutCancel(ctx)
		err = errors.Join(err, cg.Kill(bg), cg.Remove())
	}()
	f, err := os.Open(string(cg))
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stageVar+"=namespaces", dirVar+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		UseCgroupFD: true, CgroupFD: int(f.Fd()),
	}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return errors.New("stopped") // it said why
	} else if err != nil {
		return err
	}
	return nil
}

// prepareMachine makes the mounts and the network, and becomes the bench itself: the
// cgroup namespace is that of one thread until execve.
func prepareMachine(dir string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	mounts := []struct{ source, at, fstype, options string }{
		{"tmpfs", "/run", "tmpfs", "mode=0755"},
		{"cgroup", "/sys/fs/cgroup", "cgroup2", ""},
		{"bpf", "/sys/fs/bpf", "bpf", "mode=0700"},
		// What is written there is the machine's own.
		{"overlay", "/etc", "overlay", "lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work"},
		{dir + "/log", "/var/log", "", ""},
		{dir + "/etc", "/etc/vservers", "", ""},
		{dir + "/lib", "/var/lib", "", ""}, // the last: dir is below it
	}
	for _, m := range mounts {
		made := []string{m.at}
		var flags uintptr
		switch m.fstype {
		case "overlay":
			made = []string{"/run/etc", "/run/etc.work"}
		case "":
			made, flags = append(made, m.source), unix.MS_BIND
		}
		for _, d := range made {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, m.at, m.fstype, flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	// A cgroup with processes of its own can give no controller to those below it
	// (cgroups(7), "no internal processes"): crun tries that for two seconds.
	leaf := "/sys/fs/cgroup/bench"
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(leaf+"/cgroup.procs", []byte("0"), 0); err != nil {
		return fmt.Errorf("go into a cgroup of its own: %w", err)
	}
	if err := makeNetwork(); err != nil {
		return err
	}
	// Logins must not run the real root's .bashrc.
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile("/etc/passwd", []byte("root:x:0:0::"+home+":/bin/sh\nsshd:x:33:33::/:/bin/false\n"), 0o644); err != nil {
		return err
	}
	if err := os.Setenv(stageVar, "inside"); err != nil {
		return err
	}
	return fmt.Errorf("exec: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

func makeNetwork() error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add eth0: %w", err)
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(veth, addr); err != nil {
		return fmt.Errorf("add %s: %w", address, err)
	}
	for _, name := range []string{"lo", "eth0", "peer0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return nil
}
