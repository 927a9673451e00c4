package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// freezePatience is how long processes may take to stop: one that waits for a disk or a
// network filesystem stops when that answers.
const freezePatience = 10 * time.Second

// WhileFrozen calls f while no process of the cgroup runs. If vsnode is killed
// meanwhile, the processes go on at once: a program of the host waits for that.
func (c Dir) WhileFrozen(ctx context.Context, f func() error) (err error) {
	file := filepath.Join(string(c), "cgroup.freeze")
	release, err := thawWhenGone(file)
	if err != nil {
		return err
	}
	defer func() {
		if e := release(); err == nil {
			err = e
		}
	}()
	if err := linux.WriteFile(file, []byte("1"), 0); err != nil {
		return err
	}
	if err := c.waitFrozen(ctx); err != nil {
		return err
	}
	return f()
}

// waitFrozen waits until all processes have stopped.
func (c Dir) waitFrozen(ctx context.Context) error {
	events, err := os.Open(filepath.Join(string(c), "cgroup.events"))
	if err != nil {
		return err
	}
	defer events.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, freezePatience, fmt.Errorf("its processes did not freeze within %v: one may wait for a disk", freezePatience))
	defer cancel()
	for {
		buf := make([]byte, 256)
		n, err := events.ReadAt(buf, 0)
		if n == 0 {
			return fmt.Errorf("read %s: %w", events.Name(), err)
		}
		if strings.Contains(string(buf[:n]), "frozen 1") {
			return nil
		}
		select { // the kernel notifies of changes by inotify; a freeze takes microseconds
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// thawWhenGone starts a shell that thaws a cgroup when this process has ended or calls
// release. Signals to vsnode's session do not reach it.
func thawWhenGone(file string) (release func() error, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", `trap "" HUP INT TERM; read -r none; echo 0 >"$1"`, "sh", file}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{r, nil, nil}, Sys: &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("start /bin/sh, which is to thaw %s: %w", file, err)
	}
	return func() error {
		w.Close()
		st, err := p.Wait()
		if err == nil && !st.Success() {
			// The cgroup may be gone, by a stop.
			if _, err = os.Stat(file); err == nil {
				err = linux.WriteFile(file, []byte("0"), 0)
			} else if os.IsNotExist(err) {
				err = nil
			}
		}
		return err
	}, nil
}
