package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// synced reports whether the start waits until the guest is ready.
func (s *start) synced() bool { return s.Sync || s.config.Sync }

// listens reports whether the start is to hear READY=1: of an init that sends it, and
// of any that is waited for.
func (s *start) listens() bool {
	if s.spec.Reaper || len(s.config.StartSync) > 0 {
		return false
	}
	return s.synced() || s.host.WatchStarts && s.config.ownInit() && bootsSystemd(s.spec.Root)
}

// waitsFor says what tells that the guest is ready.
func (s *start) waitsFor() string {
	switch {
	case len(s.config.StartSync) > 0:
		return "apps/init/cmd.start-sync has not ended well"
	case s.spec.Reaper:
		return "its scripts have not ended"
	case s.notifier == nil:
		return "its init does not say when it is ready"
	}
	s.notifier.mu.Lock()
	defer s.notifier.mu.Unlock()
	return fmt.Sprintf("its init has not said READY=1 (sd_notify(3)), and last: %q", s.notifier.said.Status)
}

// awaitReady calls ready when the guest is, or with the reason why that will not be
// known. It returns when ctx ends.
func (s *start) awaitReady(ctx context.Context, ready context.CancelCauseFunc) {
	var err error
	switch {
	case len(s.config.StartSync) > 0 && s.synced():
		if err = s.runStartSync(ctx); err != nil && ctx.Err() == nil {
			ready(&notReadyError{err})
		}
	case s.spec.Reaper && s.synced():
		err = s.programEnded(ctx)
	case s.notifier != nil && slices.Contains(s.spec.Env, "NOTIFY_SOCKET="+notifySocket):
		err = s.notifier.wait(ctx)
	default:
		return
	}
	if err == nil {
		ready(nil)
	}
}

// notReadyError is why nobody knows whether a guest is ready.
type notReadyError struct{ error }

// runStartSync runs apps/init/cmd.start-sync in the guest.
func (s *start) runStartSync(ctx context.Context) error {
	null, err := linux.Open(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	run, err := s.host.Exec(ctx, s.name, Program{Argv: s.config.StartSync, Stdin: null, Stdout: null, Stderr: null})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = run.Signal(unix.SIGKILL) })
	defer stop()
	code, err := run.Wait()
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	return err
}

// programEnded waits until the program of a process 1 of ours has ended: its first
// child, whose number in the guest is 2.
func (s *start) programEnded(ctx context.Context) error {
	for begun := time.Now(); ; {
		pid, err := s.cgroup.Process(2)
		if err != nil {
			return err
		}
		if pid == 0 && time.Since(begun) > 100*time.Millisecond {
			return settled(ctx) // it has ended already
		}
		if pid != 0 {
			pidfd, err := unix.PidfdOpen(pid, 0)
			if errors.Is(err, unix.ESRCH) {
				return settled(ctx)
			}
			if err != nil {
				return err
			}
			defer unix.Close(pidfd)
			for ended := false; !ended; {
				if ended, err = linux.Poll(ctx, time.Minute, unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN}); err != nil {
					return err
				}
			}
			return settled(ctx)
		}
		if _, err := linux.Poll(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// settled waits a moment: without a daemon that stays, process 1 ends now.
func settled(ctx context.Context) error {
	_, err := linux.Poll(ctx, 100*time.Millisecond)
	return err
}
