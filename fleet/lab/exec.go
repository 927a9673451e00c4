package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exec runs a program inside a host without its sshd, as a test wants to who
// looks at what SSH can not be trusted to tell. argv[0] is a path in the host.
func (l *Lab) Exec(ctx context.Context, host string, stdin io.Reader, stdout, stderr io.Writer, argv ...string) (exit int, err error) {
	for _, h := range l.Hosts {
		if h.Name == host {
			exit, err := l.exec(ctx, host, stdin, stdout, stderr, argv)
			if err != nil {
				return exit, fmt.Errorf("run %s in %s: %w", argv[0], host, err)
			}
			return exit, nil
		}
	}
	return -1, fmt.Errorf("the lab has no host %q", host)
}

func (l *Lab) exec(ctx context.Context, host string, stdin io.Reader, stdout, stderr io.Writer, argv []string) (int, error) {
	root, err := cgroupRoot()
	if err != nil {
		return -1, err
	}
	g := (&state{Name: l.Name}).cgroup(root).child(host)
	pid, err := initOf(g)
	if err != nil {
		return -1, err
	}
	if pid == 0 {
		return -1, errors.New("the host is down")
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(pidfd)
	scope, err := os.Open(string(g.child(initScope)))
	if err != nil {
		return -1, err
	}
	defer scope.Close()

	cmd := &exec.Cmd{
		Path: argv[0], Args: argv, Dir: "/root",
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"},
		Stdin: stdin, Stdout: stdout, Stderr: stderr,
		SysProcAttr: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(scope.Fd())},
	}
	started := make(chan error)
	go func() {
		// The thread takes on the host's namespaces and is thrown away after
		// it has forked, because the goroutine ends without unlocking it.
		runtime.LockOSThread()
		started <- startWithin(pidfd, cmd)
	}()
	if err := <-started; err != nil {
		return -1, err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	err = cmd.Wait()
	if ctx.Err() != nil {
		return -1, ctx.Err()
	}
	if errors.As(err, new(*exec.ExitError)) {
		return cmd.ProcessState.ExitCode(), nil
	}
	return cmd.ProcessState.ExitCode(), err
}

func startWithin(pidfd int, cmd *exec.Cmd) error {
	// setns(2): a mount namespace can not be joined while the working
	// directory is shared with other threads.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	const all = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
	if err := unix.Setns(pidfd, all); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	return cmd.Start()
}
