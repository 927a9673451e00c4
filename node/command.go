package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// A command of a playbook cannot be taken back. So one that is under way when the run
// is interrupted has commandGrace to end by itself, and then endGrace to end after
// SIGTERM: a package manager that is killed at once leaves half a package.
const (
	commandGrace = 20 * time.Second
	endGrace     = 5 * time.Second
)

// execStep runs a command in a guest, or on the host.
func (h *Host) execStep(ctx context.Context, guest string, c api.Command) (api.StepResult, error) {
	result := api.StepResult{Outcome: api.Unchanged}
	for _, only := range []struct {
		path   string
		exists bool
	}{{c.Creates, false}, {c.Removes, true}} {
		if only.path == "" {
			continue
		}
		info, err := h.fileInfo(ctx, guest, only.path)
		if err != nil || info.Exists != only.exists {
			return result, err
		}
	}
	outlast, cancel := outlasting(ctx)
	defer cancel()
	if c.Timeout > 0 {
		var end context.CancelFunc
		outlast, end = context.WithTimeoutCause(outlast, c.Timeout, fmt.Errorf("no end after %s: it was ended", c.Timeout))
		defer end()
	}
	var stdout, stderr output
	run := h.onHost
	if guest != "" {
		run = func(ctx context.Context, c api.Command, stdout, stderr *output) (int, error) {
			return h.inGuest(ctx, guest, c, stdout, stderr)
		}
	}
	status, err := run(outlast, c, &stdout, &stderr)
	if cause := context.Cause(outlast); cause != nil {
		return result, fmt.Errorf("%s: %w", c.Argv[0], cause)
	}
	if err != nil {
		return result, err
	}
	result.Outcome = api.Changed
	result.Ran = &api.Ran{Status: status, Stdout: stdout.kept.Bytes(), Stderr: stderr.kept.Bytes(), Cut: stdout.cut || stderr.cut}
	if status != 0 {
		return result, fmt.Errorf("%s: exit status %d%s", c.Argv[0], status, lastLine(stderr.kept.Bytes(), stdout.kept.Bytes()))
	}
	return result, nil
}

// outlasting returns a context that ends commandGrace after ctx.
func outlasting(ctx context.Context) (context.Context, context.CancelFunc) {
	outlast, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(commandGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(fmt.Errorf("it had not ended %s after the run was interrupted, and was ended", commandGrace))
		case <-outlast.Done():
		}
	})
	return outlast, func() {
		stop()
		cancel(nil)
	}
}

// onHost runs a command on the host.
func (h *Host) onHost(ctx context.Context, c api.Command, stdout, stderr *output) (int, error) {
	argv := words(c.Argv)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb",
	}, words(c.Env)...)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), stdout, stderr
	// A group of its own, to end what the command started; it ends with vsnode, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	// A daemon that the command started may hold its output for ever.
	cmd.WaitDelay = endGrace
	// The signal of Pdeathsig is sent when the thread that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0, nil
	case !errors.As(err, &exit):
		return 0, fmt.Errorf("run %s: %w", argv[0], errors.Unwrap(err))
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// inGuest runs a command in a running guest.
func (h *Host) inGuest(ctx context.Context, name string, c api.Command, stdout, stderr *output) (int, error) {
	argv := words(c.Argv)
	if len(c.Env) > 0 {
		argv = append(append([]string{"/usr/bin/env"}, words(c.Env)...), argv...)
	}
	return h.Guests.RunOver(ctx, name, guest.Program{Argv: argv}, guest.Streams{In: bytes.NewReader(c.Stdin), Out: stdout, Errs: stderr})
}

func words(list [][]byte) []string {
	out := make([]string, len(list))
	for i, word := range list {
		out[i] = string(word)
	}
	return out
}

// output keeps the beginning of a stream.
type output struct {
	kept bytes.Buffer // not embedded: io.Copy would use its ReadFrom
	cut  bool
}

func (o *output) Write(p []byte) (int, error) {
	n := min(len(p), api.MaxOutput-o.kept.Len())
	o.cut = o.cut || n < len(p)
	o.kept.Write(p[:n])
	return len(p), nil
}

// lastLine returns ": " and the last line of the first stream that has one, or "".
func lastLine(streams ...[]byte) string {
	if line := lastLineOf(streams...); line != "" {
		return ": " + line
	}
	return ""
}

// lastLineOf returns the last line of the first stream that has one, or "".
func lastLineOf(streams ...[]byte) string {
	for _, text := range streams {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		if line := strings.TrimSpace(lines[len(lines)-1]); line != "" {
			return line
		}
	}
	return ""
}
