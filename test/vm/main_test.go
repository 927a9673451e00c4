package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideVariable is the directory of a run; it is set in the run's own namespaces.
const insideVariable = "VSFLEET_VM_RUN"

// runDir is where the run has its machine and bin/vsfleet.
var runDir = os.Getenv(insideVariable)

func TestMain(m *testing.M) {
	if runDir == "" {
		code, err := outside()
		if err != nil {
			fmt.Fprintln(os.Stderr, "tests on virtual machines:", err)
			code = 1
		}
		os.Exit(code)
	}
	if err := makeNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, "tests on virtual machines:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// suite is the release of Debian that the machine has.
func suite() string {
	if s := os.Getenv("VM"); s != "" {
		return s
	}
	return "bookworm"
}

// outside makes what the tests need and the network is needed for, and runs them in
// their own namespaces.
func outside() (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("they make disks, namespaces and devices: run them as root")
	}
	runtime.LockOSThread() // whose end would be what Pdeathsig waits for
	dir, err := makeRunDir()
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir.Name())
	defer dir.Close()
	if err := buildPrograms(dir.Name()); err != nil {
		return 1, err
	}
	disk, err := prepareDisk(suite())
	if err != nil {
		return 1, err
	}
	defer disk.Close()

	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"="+dir.Name())
	cmd.ExtraFiles = []*os.File{disk, dir} // their locks, held as long as anything of the run lives
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// makeRunDir makes the locked directory of this run, and removes those of runs that
// were killed.
func makeRunDir() (*os.File, error) {
	const parent, prefix = "/var/tmp", "vsfleet-vm-"
	all, err := filepath.Glob(filepath.Join(parent, prefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, left := range all {
		if dir, err := openLocked(left); err == nil {
			os.RemoveAll(left)
			dir.Close()
		}
	}
	name, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	return openLocked(name)
}

// openLocked opens a directory and locks it, unless it is locked.
func openLocked(name string) (*os.File, error) {
	dir, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// buildPrograms makes bin/vsfleet, if it is not up to date, and takes a copy that no
// build replaces while tests run.
func buildPrograms(dir string) error {
	cmd := exec.Command("make", "--silent", "--no-print-directory", "build")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make build: %w\n%s", err, out)
	}
	program, err := os.ReadFile("../../bin/vsfleet")
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bin", "vsfleet"), program, 0o755)
}

// makeNetwork makes the device that the machine is connected to, in the run's own
// network namespace, and a /proc of the run's processes.
func makeNetwork() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: tapName}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(tap); err != nil {
		return fmt.Errorf("make %s: %w", tapName, err)
	}
	for _, address := range []string{"10.77.0.1/24", "fd77::1/64"} {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(tap, a); err != nil {
			return fmt.Errorf("give %s to %s: %w", address, tapName, err)
		}
	}
	return errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetUp(tap))
}
