package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests need root. They run in a network and a mount namespace of their
// own, with a /run of their own: labs made there neither meet nor change those
// of the machine, and whatever they leave behind can be found by comparison.
// Cgroups are the machine's; the names of the tests' labs are theirs alone.

const (
	insideEnv = "VSFLEET_LAB_TEST"
	upCommand = "lab-test-up" // DIR NAME HOSTS: an Up that can be killed
	downCmd   = "lab-test-down"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case InitCommand:
			os.Exit(InitMain(os.Args[2:]))
		case upCommand, downCmd:
			if err := runUp(os.Args[1:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(runInside())
	}
	if err := isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "isolate the tests:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runUp(args []string) error {
	o := Options{Dir: args[1], Name: args[2]}
	if args[0] == downCmd {
		return Down(context.Background(), o)
	}
	var err error
	if o.Hosts, err = strconv.Atoi(args[3]); err != nil {
		return err
	}
	_, err = Up(context.Background(), o)
	return err
}

func runInside() int {
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "these tests need root:", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

func isolate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	// A new namespace starts with what the machine has just now.
	if err := os.WriteFile(forwardSysctl, []byte("0"), 0o644); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
