package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	enterArgument = "enter" // second argument; a pidfd is controlFD, argv follows
	notStarted    = 126     // exit status, as env(1) has it
)

// Exec runs a program inside a host without its sshd, for tests which look at
// what SSH cannot be trusted to tell. argv[0] is a path in the host. Exit
// status 126 is also that of a program that could not be started; stderr says
// why.
//
// The program that calls it is started again in between, as for Up: a process
// must first be in the host's cgroup and then join its cgroup namespace,
// because cgroup v2 mounted with nsdelegate, as systemd does, lets no process in
// from outside.
func (l *Lab) Exec(ctx context.Context, host string, stdin io.Reader, stdout, stderr io.Writer, argv ...string) (exit int, err error) {
	lab, err := labCgroup(l.Name)
	if err != nil {
		return -1, err
	}
	g := lab.child(host)
	pid, err := initOf(g)
	if err != nil {
		return -1, err
	}
	if pid == 0 {
		return -1, fmt.Errorf("run %s in %s: the host is down", argv[0], host)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("run %s in %s: pidfd_open: %w", argv[0], host, err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	scope, err := os.Open(string(g.child(initScope)))
	if err != nil {
		return -1, err
	}
	defer scope.Close()

	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{InitCommand, enterArgument}, argv...)...)
	cmd.Env = []string{initEnv + "=1"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.ExtraFiles = []*os.File{pidfd}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(scope.Fd())}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // enter passes it on
	err = cmd.Run()
	if ctx.Err() != nil {
		return -1, ctx.Err()
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return -1, fmt.Errorf("run %s in %s: %w", argv[0], host, err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

// enter is the program that Exec starts.
func enter(argv []string) int {
	unix.CloseOnExec(controlFD)
	cancelled := make(chan os.Signal, 1)
	signal.Notify(cancelled, unix.SIGTERM)
	cmd, err := startWithin(controlFD, argv)
	if err == nil {
		// Pdeathsig would do, but os/exec takes a parent in another pid
		// namespace for a dead one.
		go func() {
			<-cancelled
			cmd.Process.Kill()
		}()
		err = cmd.Wait()
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		fmt.Fprintln(os.Stderr, "lab: enter host:", err)
		return notStarted
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

func startWithin(pidfd int, argv []string) (*exec.Cmd, error) {
	runtime.LockOSThread() // for good: it is the thread that is in the host
	// setns(2): a mount namespace cannot be joined while the working
	// directory is shared with other threads.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("unshare: %w", err)
	}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
	if err := unix.Setns(pidfd, all); err != nil {
		return nil, fmt.Errorf("setns: %w", err)
	}
	cmd := &exec.Cmd{
		Path: argv[0], Args: argv, Dir: "/root", Env: hostEnv(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	return cmd, cmd.Start()
}
