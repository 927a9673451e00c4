// Package timer runs a program after a while, whatever becomes of the session that asks
// for it.
//
// Where systemd runs the host, it is a transient timer: nothing of ours runs until it
// fires, and it belongs to no session that logind could end (KillUserProcesses).
// Elsewhere, and where systemd refuses, the program is begun at once, detached, and is
// expected to wait by itself. The program must therefore find out by itself whether
// its time has come.
//
// # Never
//
// A timer does not survive a reboot, and neither does a detached process: what is to be
// done must be on the disk, and the next call must do it.
package timer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Timer is a program that is to be run.
type Timer struct {
	Unit  string // name of the unit, without ".timer"
	After time.Duration
	Argv  []string // the first one is a path
}

// systemd is where sd_booted(3) looks, and how systemd's programs are called.
var (
	booted     = "/run/systemd/system"
	systemdRun = "systemd-run"
	systemctl  = "systemctl"
)

// patience is how long systemd may take to answer.
const patience = 10 * time.Second

// Start starts the timer.
func (t Timer) Start(ctx context.Context) error {
	if _, err := os.Lstat(booted); err == nil && call(ctx, systemdRun, t.args()...) == nil {
		return nil
	}
	cmd := exec.Command(t.Argv[0], t.Argv[1:]...) // without ctx: it outlives us
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", t.Argv[0], err)
	}
	go func() { _ = cmd.Wait() }() // it may end before we do
	return nil
}

// args returns the arguments of systemd-run.
func (t Timer) args() []string {
	seconds := int((t.After + time.Second - 1) / time.Second)
	return append([]string{
		"--quiet", "--collect", "--unit=" + t.Unit,
		fmt.Sprintf("--on-active=%d", seconds),
		"--timer-property=AccuracySec=1s", // the default is a minute
		"--description=vsnode puts guests back unless its controller comes back",
		"--",
	}, t.Argv...)
}

// Stop removes the timer if it has not fired yet. A detached process is not ended: it
// notices by itself that there is nothing to do.
func (t Timer) Stop(ctx context.Context) error {
	if _, err := os.Lstat(booted); err != nil {
		return nil
	}
	return call(ctx, systemctl, "--quiet", "--no-ask-password", "stop", t.Unit+".timer")
}

// call runs a program. Its error has what the program printed.
func call(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
