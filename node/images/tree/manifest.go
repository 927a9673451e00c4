package tree

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// manifestHead is the first line of every manifest.
const manifestHead = "vsfleet tree 1\n"

// maxTime is the last time that ext4 can keep; later ones would be others on the disk.
const maxTime = 15032385535

// maxLine bounds a line of a manifest: the attributes of a file may be as long as all
// attributes of an inode, each byte of them as an escape.
const maxLine = 1 << 20

// An Entry is a line of a manifest.
type Entry struct {
	entry
	object string
}

// Path returns the entry's name below the root: "usr/bin/true".
func (e *Entry) Path() string { return e.path }

// Object returns the sha256 of a file's content as 64 digits; "" if the entry is not a
// file, or one without content.
func (e *Entry) Object() string { return e.object }

// Size returns the length of a file.
func (e *Entry) Size() int64 { return e.size }

// Mtime returns the time of modification in seconds.
func (e *Entry) Mtime() int64 { return e.mtime }

// Nsec returns the nanoseconds of the time of modification.
func (e *Entry) Nsec() uint32 { return e.nsec }

// Owner returns the ids of its user and group.
func (e *Entry) Owner() (uid, gid uint32) { return e.uid, e.gid }

// Mode returns the type and the permissions, as stat(2) has them. A hard link has none: it
// is another name of the file that HardLink names.
func (e *Entry) Mode() uint32 {
	switch e.kind {
	case file:
		return unix.S_IFREG | e.mode
	case directory:
		return unix.S_IFDIR | e.mode
	case symlink:
		return unix.S_IFLNK | 0o777
	case fifo:
		return unix.S_IFIFO | e.mode
	}
	return 0
}

// Symlink returns the target of a symbolic link.
func (e *Entry) Symlink() (target string, ok bool) { return e.link, e.kind == symlink }

// HardLink returns the entry before that this one is another name of.
func (e *Entry) HardLink() (target string, ok bool) { return e.link, e.kind == hardlink }

// Xattrs calls visit for each extended attribute.
func (e *Entry) Xattrs(visit func(name, value string)) {
	for _, x := range e.xattrs {
		if x.name != ownMark {
			visit(x.name, x.value)
		}
	}
}

// ReadManifest calls visit for each line of a manifest, in order, and returns the digest
// and size of the tree that it describes. It refuses what is not exactly the manifest of a
// tree, whatever wrote it.
func ReadManifest(r io.Reader, visit func(*Entry) error) (Sum, error) {
	lines := bufio.NewReaderSize(r, 1<<16)
	if line, err := readLine(lines); err != nil || line != manifestHead {
		return Sum{}, errors.Join(errors.New("not a manifest of this version of vsnode"), err)
	}
	s, order := newSummer(nil), newRules()
	for n := 2; ; n++ {
		line, err := readLine(lines)
		if err == io.EOF && line == "" {
			return s.done(), nil
		}
		var e Entry
		if err == nil {
			err = e.parse(line)
		}
		if err == nil {
			err = order.check(&e.entry)
		}
		if err == nil {
			s.addLine(&e.entry, []byte(line))
			err = visit(&e)
		}
		if err != nil {
			return Sum{}, fmt.Errorf("line %d of the manifest: %w", n, err)
		}
	}
}

func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return string(line), nil
		case err == io.EOF && len(line) > 0:
			return string(line), io.ErrUnexpectedEOF
		case err != bufio.ErrBufferFull:
			return string(line), err
		case len(line) > maxLine:
			return "", fmt.Errorf("more than %d bytes", maxLine)
		}
	}
}

var errLine = errors.New("not a line of a manifest")

// parse reads a line. Each entry has exactly one line.
func (e *Entry) parse(line string) error {
	p := parser{rest: line}
	kindText := p.word()
	if len(kindText) != 1 {
		return errLine
	}
	e.kind = kind(kindText[0])
	e.path = p.quoted()
	e.mode = uint32(p.number(8, 0, 0o7777))
	e.uid, e.gid = uint32(p.number(10, 0, maxID)), uint32(p.number(10, 0, maxID))
	e.size = p.number(10, 0, math.MaxInt64)
	e.mtime, e.nsec = p.time()
	e.link = p.quoted()
	content, err := hex.DecodeString(p.word())
	if err != nil || p.failed {
		return errLine
	}
	for p.rest != "" && !p.failed {
		e.xattrs = append(e.xattrs, xattr{p.quoted(), p.quoted()})
	}
	if p.failed || string(e.line(content)) != line {
		return errLine
	}
	if (e.kind == file) != (len(content) == 32) || e.kind != file && len(content) > 0 {
		return errLine
	}
	if e.kind == file && e.size > 0 {
		e.object = hex.EncodeToString(content)
	}
	return nil
}

// A parser takes the fields of a line, each with the space or the newline after it.
type parser struct {
	rest   string
	failed bool
}

func (p *parser) word() string {
	i := strings.IndexAny(p.rest, " \n")
	if i < 0 {
		p.failed = true
		return ""
	}
	word := p.rest[:i]
	p.rest = p.rest[i+1:]
	return word
}

func (p *parser) number(base int, low, high int64) int64 {
	n, err := strconv.ParseInt(p.word(), base, 64)
	if err != nil || n < low || n > high {
		p.failed = true
	}
	return n
}

// time takes seconds, and nanoseconds if there are some.
func (p *parser) time() (int64, uint32) {
	word := p.word()
	sec, nsec, fraction := strings.Cut(word, ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || s < math.MinInt32 || s > maxTime || fraction && len(nsec) != 9 {
		p.failed = true
	}
	n, err := strconv.ParseUint("0"+nsec, 10, 32)
	if err != nil {
		p.failed = true
	}
	return s, uint32(n)
}

func (p *parser) quoted() string {
	q, err := strconv.QuotedPrefix(p.rest)
	if err != nil || len(q) == len(p.rest) {
		p.failed = true
		return ""
	}
	p.rest = p.rest[len(q)+1:]
	text, err := strconv.Unquote(q)
	if err != nil {
		p.failed = true
	}
	return text
}

// Rules are what the entries of a tree obey, in the order of a walk.
type rules struct {
	last    string          // entry
	parents []string        // the directories that it is in, and itself if it is one
	files   map[string]bool // what may have other names
	layer   bool            // an upper layer of overlayfs
}

func newRules() *rules { return &rules{files: make(map[string]bool)} }

// check refuses an entry that cannot be the next one of a tree.
func (r *rules) check(e *entry) error {
	name, err := clean(e.path)
	switch {
	case err != nil:
		return err
	case name == "" || name != e.path || strings.ContainsRune(name, 0) || len(name) >= unix.PathMax || len(path.Base(name)) > unix.NAME_MAX:
		return fmt.Errorf("%q: not an entry of a tree", shorten(e.path))
	case !follows(r.last, e.path):
		return fmt.Errorf("%q: comes after %q, out of order", shorten(e.path), shorten(r.last))
	}
	for len(r.parents) > 0 && !strings.HasPrefix(e.path, r.parents[len(r.parents)-1]+"/") {
		r.parents = r.parents[:len(r.parents)-1]
	}
	parent := ""
	if len(r.parents) > 0 {
		parent = r.parents[len(r.parents)-1]
	}
	if dir := path.Dir("/" + e.path)[1:]; dir != parent {
		return fmt.Errorf("%q: there is no directory %q before it", shorten(e.path), shorten(dir))
	}
	r.last = e.path
	switch e.kind {
	case directory:
		r.parents = append(r.parents, e.path)
	case hardlink:
		if !r.files[e.link] {
			return fmt.Errorf("%q: a hard link to %q, which is not a file before it", shorten(e.path), shorten(e.link))
		}
		if e.mode != 0 || e.uid != 0 || e.gid != 0 || e.mtime != 0 || e.nsec != 0 {
			return fmt.Errorf("%q: a hard link has no attributes", shorten(e.path))
		}
	case file, symlink, fifo:
		r.files[e.path] = true
	case whiteout:
		if !r.layer {
			return fmt.Errorf("%q: not an entry of a tree", shorten(e.path))
		}
		r.files[e.path] = true
	default:
		return fmt.Errorf("%q: not an entry of a tree", shorten(e.path))
	}
	return r.checkRest(e)
}

func (r *rules) checkRest(e *entry) error {
	bad := e.size != 0 && e.kind != file || (e.link != "") != (e.kind == symlink || e.kind == hardlink) || len(e.link) >= unix.PathMax ||
		strings.ContainsRune(e.link, 0) || e.kind == symlink && e.mode != 0 || len(e.xattrs) > 0 && e.kind != file && e.kind != directory
	last := ""
	for _, x := range e.xattrs {
		bad = bad || !portable(x.name) && x.name != ownMark && !(r.layer && stacking(x.name)) || x.name <= last || strings.ContainsRune(x.name, 0)
		last = x.name
	}
	if bad {
		return fmt.Errorf("%q: what it has contradicts its kind", shorten(e.path))
	}
	return nil
}

// Same reports whether a guest sees the same in two entries, except for times.
func (e *Entry) Same(o *Entry) bool {
	return e.kind == o.kind && e.object == o.object && e.link == o.link && e.mode == o.mode && e.uid == o.uid && e.gid == o.gid && slices.Equal(e.xattrs, o.xattrs)
}
