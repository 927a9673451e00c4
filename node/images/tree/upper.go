package tree

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/order"
)

// An Upper is an upper layer of overlayfs that is written as a tar archive: its files as a
// guest sees them, whiteouts as devices 0:0, and the attributes by which overlayfs stacks
// it. Device nodes and sockets are left out.
//
// It can be written in rounds, of which [UnpackUpper] makes the layer again: what the round
// before has sent and nobody has changed since is a hard link to itself. A file is unchanged
// if its inode and the time of its last change are, which no program of a guest can set.
type Upper struct {
	From *os.File
	// Own is what the guest has that is not in the layer; nil: nothing. It is written as if it
	// were there, so that the layer can lie on the image.
	Own *Own
	// Changing: programs change the files meanwhile.
	Changing bool
	// Sent is the index of the round before, a line for each file in the order of the walk: its
	// name, as %q has it, and its IDRecord. nil: this is the first.
	Sent io.Reader
	// Index: the headers of files have an IDRecord, for the index of the next round.
	Index bool
	// Begun is when the first round began, in seconds. The files must have been written back
	// to the disk since: a page that is dirty and mapped changes without a new time.
	Begun int64
}

// IDRecord is the key of what of a file changes whenever the file does.
const IDRecord = "VSFLEET.id"

// upperPrefix is before all names of an archive.
const upperPrefix = "root/"

// stacking reports whether an attribute tells overlayfs how a layer lies on the one below.
// Others of its attributes are about the host that the layer is on.
func stacking(name string) bool {
	switch name {
	case "trusted.overlay.opaque", metacopy, "trusted.overlay.redirect":
		return true
	}
	return false
}

// metacopy marks files whose data are in the layer below.
const metacopy = "trusted.overlay.metacopy"

// Pack writes the layer to w.
func (u Upper) Pack(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	at := &index{}
	if u.Sent != nil {
		at.r = bufio.NewReaderSize(u.Sent, 1<<16)
	}
	buf := make([]byte, 1<<18)
	c := &copying{Copy: Copy{From: u.From, Changing: u.Changing}, layer: true, sent: true}
	visit := func(e *entry, content io.Reader) error {
		h := e.header()
		h.Name = upperPrefix + h.Name
		if e.kind == hardlink {
			h.Linkname = upperPrefix + h.Linkname
		}
		if content != nil {
			id, changed, err := identify(content)
			if err != nil {
				return err
			}
			if u.Index {
				if h.PAXRecords == nil {
					h.PAXRecords = map[string]string{}
				}
				h.PAXRecords[IDRecord] = id
			}
			same, err := at.has(e.path, id)
			if err != nil {
				return err
			}
			if same && changed < u.Begun-1 { // the kernel's clock for files is some milliseconds late
				return tw.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeLink, Name: h.Name, Linkname: h.Name})
			}
		}
		if err := tw.WriteHeader(h); err != nil || content == nil {
			return err
		}
		n, err := copyBuffer(ctx, buf, io.LimitReader(content, e.size), func(b []byte) error { _, err := tw.Write(b); return err })
		if err == nil && n < e.size && !u.Changing {
			err = errors.New("it became shorter while it was read")
		}
		clear(buf)
		for ; err == nil && n < e.size; n += int64(len(buf)) {
			_, err = tw.Write(buf[:min(int64(len(buf)), e.size-n)])
		}
		return err
	}
	wk := &walker{own: u.Own, ctx: ctx, first: make(map[inode]string), copying: c, visit: func(e *entry, content io.Reader) error {
		if err := visit(e, content); err != nil {
			return fmt.Errorf("pack %s: %w", shorten(e.path), err)
		}
		return nil
	}}
	root, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", u.From.Fd()), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	if c.to, err = root.Stat(); err != nil { // which no directory of the layer is
		return err
	}
	if err := wk.directory(root, ""); err != nil {
		return err
	}
	return tw.Close()
}

// identify returns what of a file changes whenever the file does, and the second in which
// it last did.
func identify(content io.Reader) (id string, changed int64, err error) {
	f, ok := content.(*os.File)
	if !ok {
		c := content.(*ownContent)
		return c.id, c.changed, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", 0, err
	}
	return fmt.Sprintf("%d %d.%09d", st.Ino, st.Ctim.Sec, st.Ctim.Nsec), st.Ctim.Sec, nil
}

// An index is what a round has sent, in the order of the walk.
type index struct {
	r        *bufio.Reader
	path, id string
}

// has reports whether a file of this identity was sent. It is asked in the order of the walk.
func (x *index) has(path, id string) (bool, error) {
	for x.r != nil && follows(x.path, path) {
		line, err := x.r.ReadString('\n')
		if err == io.EOF {
			x.r, x.path = nil, ""
			break
		}
		quoted, qerr := strconv.QuotedPrefix(line)
		if err = errors.Join(err, qerr); err == nil {
			x.path, err = strconv.Unquote(quoted)
		}
		if err != nil {
			return false, fmt.Errorf("read what was sent: %w", err)
		}
		x.id = strings.TrimSpace(line[len(quoted):])
	}
	return x.path == path && x.id == strings.TrimSpace(id), nil
}

// UnpackUpper makes an upper layer in an empty directory of what [Upper.Pack] has written.
// earlier is the one that the round before has made, on the same filesystem; nil: there was
// no round. Names that are not of the layer are skipped. What Pack does not write is refused.
func UnpackUpper(ctx context.Context, to string, earlier *os.File, r io.Reader) error {
	p, err := newPlacer(ctx, to, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer p.close()
	rules := newRules()
	rules.layer = true
	end := &lastBlock{r: r}
	tr := tar.NewReader(end)
	for {
		h, err := tr.Next()
		switch {
		case err == io.EOF && !end.zero():
			return errors.New("the files end in the middle")
		case err == io.EOF:
			return p.finish()
		case err != nil:
			return fmt.Errorf("read the files: %w", err)
		}
		var below bool
		if h.Name, below = strings.CutPrefix(h.Name, upperPrefix); !below {
			continue
		}
		if err := p.upper(h, tr, earlier, rules); err != nil {
			return fmt.Errorf("unpack %q: %w", shorten(h.Name), err)
		}
	}
}

// upper places an entry of an upper layer.
func (p *placer) upper(h *tar.Header, content io.Reader, earlier *os.File, rules *rules) error {
	if h.Typeflag == tar.TypeLink {
		link, below := strings.CutPrefix(h.Linkname, upperPrefix)
		if !below {
			return fmt.Errorf("a hard link to %q, which is not of the layer", shorten(h.Linkname))
		}
		h.Linkname = link
	}
	e, err := fromHeader(h)
	if err != nil {
		return err
	}
	kept := e.kind == hardlink && e.link == e.path
	switch {
	case kept:
		e.kind, e.link = file, ""
	case e.kind == 0 && h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0:
		e.kind, e.mode = whiteout, 0
	}
	if e.kind == file && !kept || e.kind == directory {
		for key, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(key, paxXattr); ok && stacking(name) {
				e.xattrs = append(e.xattrs, xattr{name, value})
			}
		}
		order.Func(e.xattrs, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	}
	if err := rules.check(e); err != nil {
		return err
	}
	if kept {
		return p.keep(e, earlier)
	}
	return p.place(e, content, nil)
}

// keep makes a file of the round before one of this round.
func (p *placer) keep(e *entry, earlier *os.File) error {
	if earlier == nil {
		return errors.New("it is said to be there already, and nothing is")
	}
	fd, err := unix.Openat2(int(earlier.Fd()), e.path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return fmt.Errorf("it is said to be there already: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.Join(err, errors.New("it is said to be there already, and is not a regular file"))
	}
	if err := p.count(); err != nil {
		return err
	}
	dir, base, err := p.openParent(e.path)
	if err != nil {
		return err
	}
	return unix.Linkat(fd, "", dir, base, unix.AT_EMPTY_PATH)
}
