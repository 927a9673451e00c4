package tree

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A Copy describes how a directory is copied into a tree.
type Copy struct {
	From *os.File
	To   string
	Onto Onto // what To holds: Empty or Archives
	// Omit leaves out a file, or what is in a directory.
	Omit func(path string) bool
	// Cross reports whether a filesystem that is mounted on this directory is copied too.
	Cross func(path string) bool
	// Changing: files of From may change, appear and disappear meanwhile.
	Changing bool
	// Report receives how much has been copied, once per MiB.
	Report func(bytes int64)
}

// copying is a Copy that is done.
type copying struct {
	Copy
	layer bool // From is an upper layer of overlayfs, and stays one
	sent  bool // to another host: only the attributes that mean something there
	done  Extracted
	to    os.FileInfo
}

// Copy copies all that a tree can hold and leaves out the rest: device nodes, sockets,
// attributes of the host's. What a user of From puts there meanwhile is not followed.
func (c Copy) Copy(ctx context.Context) (Extracted, error) {
	return (&copying{Copy: c}).run(ctx)
}

// CopyLayer copies an upper layer of overlayfs, whiteouts included, into an empty
// directory.
func CopyLayer(ctx context.Context, from *os.File, to string) error {
	_, err := (&copying{Copy: Copy{From: from, To: to}, layer: true}).run(ctx)
	return err
}

func (c *copying) run(ctx context.Context) (Extracted, error) {
	resolve := uint64(unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS)
	if c.Onto != Empty {
		resolve = unix.RESOLVE_IN_ROOT
	}
	p, err := newPlacer(ctx, c.To, resolve)
	if err != nil {
		return Extracted{}, err
	}
	defer p.close()
	p.replace, p.changing = c.Onto != Empty, c.Changing
	if c.to, err = p.root.Stat(); err != nil {
		return c.done, err
	}
	reported := int64(0)
	w := &walker{ctx: ctx, first: make(map[inode]string), copying: c, visit: func(e *entry, content io.Reader) error {
		if content != nil {
			content = io.LimitReader(content, e.size) // it may have grown since
		}
		if err := p.place(e, content, nil); err != nil {
			return fmt.Errorf("copy %s: %w", shorten(e.path), err)
		}
		c.done.Entries++
		c.done.Bytes += e.size
		if c.Report != nil && c.done.Bytes-reported >= 1<<20 {
			reported = c.done.Bytes
			c.Report(reported)
		}
		return nil
	}}
	root, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", c.From.Fd()), unix.O_DIRECTORY, 0) // From may be O_PATH
	if err != nil {
		return c.done, err
	}
	defer root.Close()
	if err := w.directory(root, ""); err != nil {
		return c.done, err
	}
	return c.done, p.finish()
}

// omits reports whether a name, or what is in the directory of that name, is left out.
func (c *copying) omits(path string) bool { return c != nil && c.Omit != nil && c.Omit(path) }

// keeps returns the test for extended attributes that are copied.
func (c *copying) keeps() func(string) bool {
	if c == nil || !c.layer {
		return portable
	}
	if c.sent {
		return func(name string) bool { return portable(name) || stacking(name) }
	}
	return func(name string) bool { return portable(name) || strings.HasPrefix(name, "trusted.overlay.") }
}

// node handles a device node or a socket.
func (c *copying) node(w *walker, e *entry, st *unix.Stat_t) error {
	if c.layer && isWhiteout(st) {
		e.kind, e.mode = whiteout, 0
		return w.visit(e, nil)
	}
	c.done.Nodes++
	return nil
}

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// enters reports whether the copy goes on in a directory below dir: not if another
// filesystem is mounted on it, or if it is what the copy becomes.
func (c *copying) enters(dir, sub *os.File, path string) (bool, error) {
	if c == nil {
		return true, nil
	}
	info, err := sub.Stat()
	if err != nil || os.SameFile(info, c.to) {
		return false, err
	}
	if c.Cross != nil && c.Cross(path) {
		return true, nil
	}
	above, err := mountOf(dir)
	if err != nil {
		return false, err
	}
	own, err := mountOf(sub)
	return above == own, err
}

// mountOf returns the id of the mount that an open directory is on.
func mountOf(dir *os.File) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("statx %s: %w", dir.Name(), err)
	}
	return st.Mnt_id, nil
}
