package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vsfleet/vsfleet/internal/printable"
)

// Bounds on what a program may print.
const (
	maxOutput = 64 << 20
	maxErrors = 2000
)

// Runner returns a function that runs a program and returns what it prints. The
// program has timeout to end.
func Runner(ctx context.Context, timeout time.Duration) func(path string, args ...string) ([]byte, error) {
	return func(path string, args ...string) ([]byte, error) { return run(ctx, timeout, path, args) }
}

func run(ctx context.Context, timeout time.Duration, path string, args []string) ([]byte, error) {
	path, err := filepath.Abs(path) // never looked for in PATH
	if err != nil {
		return nil, err
	}
	timeoutErr := fmt.Errorf("it has not ended within %s", timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, timeoutErr)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for children that left the group and hold the pipes
	stdout := &bounded{limit: maxOutput, full: cancel}
	stderr := &tail{limit: maxErrors}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case stdout.over:
		return nil, fmt.Errorf("it printed more than %d MiB", maxOutput>>20)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay): // it has ended well, and left a child behind
		return stdout.data, nil
	case errors.As(err, &exit):
		return nil, fmt.Errorf("it ended with %w%s", exit, said(stderr))
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w (or not its interpreter, which its first line names)", err)
	case err != nil:
		return nil, err
	}
	return stdout.data, nil
}

// said returns the last line of what a program has written to standard error, for an
// error.
func said(stderr *tail) string {
	text := strings.TrimSpace(string(stderr.data))
	if text == "" {
		return ""
	}
	return ": " + printable.Line(text[strings.LastIndexByte(text, '\n')+1:])
}

// bounded keeps the first bytes up to a limit.
type bounded struct {
	data  []byte // no bytes.Buffer: its ReadFrom would take the place of Write
	limit int
	over  bool
	full  func() // called when there are more
}

func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if rest := b.limit - len(b.data); len(p) > rest {
		p, b.over = p[:rest], true
		b.full()
	}
	b.data = append(b.data, p...)
	return n, nil
}

// tail keeps the last bytes, at least limit of them.
type tail struct {
	data  []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	if t.data = append(t.data, p...); len(t.data) > 2*t.limit {
		t.data = append(t.data[:0], t.data[len(t.data)-t.limit:]...)
	}
	return len(p), nil
}
