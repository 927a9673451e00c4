// Package editor runs an editor on a text that must not be written to disk.
//
// The text is in a new directory in memory (tmpfs). A separate process removes the
// directory when the caller ends, even if the caller is killed. Copies that editors
// keep elsewhere (swap files, histories) are not removed.
package editor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command returns the command line of the editor in $VISUAL or $EDITOR, or else vi.
func Command() []string {
	return strings.Fields(cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi"))
}

// Edit runs an editor on a text and passes the result to accept, and repeats that while
// accept returns again. The file has the base name of name, from which editors choose a
// syntax.
func Edit(ctx context.Context, command []string, name string, text []byte, accept func(edited []byte) (again bool, err error)) (err error) {
	dir, sweep, err := privateDir(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sweep()) }()
	path := filepath.Join(dir, filepath.Base(name))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	for {
		cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], path)...)
		cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("editor %s: %w: nothing was changed", command[0], err)
		}
		edited, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if again, err := accept(edited); !again {
			return err
		}
	}
}

// prefix begins the names of the directories.
const prefix = "vsfleet-edit-"

// privateDir makes a directory in memory. It is removed when sweep is called or this
// process ends.
func privateDir(ctx context.Context) (dir string, sweep func() error, err error) {
	for _, parent := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm", "/run"} {
		if parent == "" || !inMemory(parent) {
			continue
		}
		if dir, err = os.MkdirTemp(parent, prefix); err == nil {
			break
		}
	}
	if dir == "" {
		return "", nil, errors.New("no directory in memory is writable ($XDG_RUNTIME_DIR, /dev/shm, /run), and secrets are not written to disk")
	}
	sweep, err = sweeper(ctx, dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, sweep, nil
}

func inMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

// SweepCommand is the argument with which a program runs SweepMain.
const SweepCommand = "sweep-secrets"

// sweeper starts the process that removes a directory when its standard input ends,
// which happens at the latest when this process ends.
func sweeper(ctx context.Context, dir string) (func() error, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe", SweepCommand, dir)
	cmd.Args[0] = os.Args[0]                             // some programs choose what to do by their name
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no Ctrl-C reaches it
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		alive.Close()
		return errors.Join(cmd.Wait(), os.RemoveAll(dir)) // in case the process could not remove it
	}, nil
}

// SweepMain removes a directory when standard input ends, and returns an exit status.
func SweepMain(args []string) int {
	if len(args) != 1 || !strings.HasPrefix(filepath.Base(args[0]), prefix) {
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := os.RemoveAll(args[0]); err != nil {
		return 1
	}
	return 0
}
