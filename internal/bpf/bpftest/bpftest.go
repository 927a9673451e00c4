// Package bpftest runs tests that pin BPF programs with a bpffs of their own, so that they
// neither meet nor leave pins of the machine.
package bpftest

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Main is m.Run in a mount namespace of its own, for TestMain. It does not return.
func Main(m *testing.M) {
	const alone = "VSFLEET_TEST_ALONE"
	if os.Getenv(alone) != "" {
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("bpf", linux.BPFFS, "bpf", 0, "")); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), alone+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		panic(err)
	}
	os.Exit(0)
}
