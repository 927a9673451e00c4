package tree

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/order"
)

// Sum is the digest and the size of a tree.
type Sum struct {
	ID    string // "sha256:…"
	Bytes int64  // of all files, each hard-linked one once
	Files int64  // entries: files, directories, links
}

type kind byte

const (
	file      kind = 'f'
	directory kind = 'd'
	symlink   kind = 'l'
	hardlink  kind = 'h'
	fifo      kind = 'p'
	whiteout  kind = 'w' // of overlayfs; in the copy of a layer only
)

// An entry is one name of a tree.
type entry struct {
	kind     kind
	path     string // "usr/bin/true"
	mode     uint32 // permissions with setuid, setgid and sticky; 0 for links
	uid, gid uint32
	size     int64  // of a file
	mtime    int64  // seconds
	nsec     uint32 // of mtime; 0 unless a guest's own tree is described
	link     string
	xattrs   []xattr // sorted by name; of files and directories
}

type xattr struct{ name, value string }

// portable reports whether an extended attribute is part of a tree.
func portable(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	// user.overlay.* redirects lookups on an overlay that is mounted with
	// userxattr, as trusted.overlay.* does on others.
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// A digester computes the manifest's digest, and writes the manifest.
type digester struct {
	hash     hash.Hash
	manifest *bufio.Writer // nil: not written; it remembers its errors
	sum      Sum
}

func newSummer(manifest *bufio.Writer) *digester {
	s := &digester{hash: sha256.New(), manifest: manifest}
	s.write([]byte(manifestHead))
	return s
}

func (s *digester) write(line []byte) {
	s.hash.Write(line) // never fails
	if s.manifest != nil {
		_, _ = s.manifest.Write(line) // Flush has the error
	}
}

// add adds the next entry in walk order and, for a file, its content's sha256.
func (s *digester) add(e *entry, content []byte) { s.addLine(e, e.line(content)) }

func (s *digester) addLine(e *entry, line []byte) {
	s.write(line)
	s.sum.Files++
	s.sum.Bytes += e.size
}

// line returns the entry's line in the manifest.
func (e *entry) line(content []byte) []byte {
	// %+q: what %q leaves unescaped depends on the Unicode tables of the Go release.
	b := fmt.Appendf(nil, "%c %+q %o %d %d %d %d", e.kind, e.path, e.mode, e.uid, e.gid, e.size, e.mtime)
	if e.nsec != 0 {
		b = fmt.Appendf(b, ".%09d", e.nsec)
	}
	b = fmt.Appendf(b, " %+q %x", e.link, content)
	for _, x := range e.xattrs {
		b = fmt.Appendf(b, " %+q %+q", x.name, x.value)
	}
	return append(b, '\n')
}

func (s *digester) done() Sum {
	s.sum.ID = "sha256:" + hex.EncodeToString(s.hash.Sum(nil))
	return s.sum
}

const paxXattr = "SCHILY.xattr."

// header returns the entry's header as Pack writes it.
func (e *entry) header() *tar.Header {
	h := &tar.Header{
		Format: tar.FormatPAX, Name: e.path, Linkname: e.link, Size: e.size,
		Mode: int64(e.mode), Uid: int(e.uid), Gid: int(e.gid), ModTime: time.Unix(e.mtime, 0),
	}
	switch e.kind {
	case file:
		h.Typeflag = tar.TypeReg
	case directory:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case symlink:
		h.Typeflag = tar.TypeSymlink
	case hardlink:
		h.Typeflag = tar.TypeLink
	case fifo:
		h.Typeflag = tar.TypeFifo
	case whiteout: // device 0:0
		h.Typeflag = tar.TypeChar
	}
	for _, x := range e.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords[paxXattr+x.name] = x.value
	}
	return h
}

// fromHeader returns the entry of any archive's header. Its kind is 0 if a tree
// cannot hold it: a device node, a label, a global header.
func fromHeader(h *tar.Header) (*entry, error) {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader, 'V': // a header of git archive and a label of GNU tar: not entries
		return &entry{}, nil
	case 'M', 'N':
		return nil, fmt.Errorf("%q: the archive is one of several volumes: put them together first", h.Name)
	}
	path, err := clean(h.Name)
	if err != nil {
		return nil, err
	}
	e := &entry{path: path, mode: uint32(h.Mode & 0o7777), uid: uint32(h.Uid), gid: uint32(h.Gid), mtime: h.ModTime.Unix()}
	if err := checkOwner(h.Name, h.Uid, h.Gid); err != nil {
		return nil, err
	}
	// The range of ext4; times beyond it would be different ones on the disk.
	if e.mtime < math.MinInt32 || e.mtime >= 15032385536 {
		return nil, fmt.Errorf("%q: time of modification %d is out of range", h.Name, e.mtime)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		e.kind, e.size = file, h.Size
	case tar.TypeDir, 'D': // 'D' holds what tar --listed-incremental found in it, for its own use
		e.kind = directory
	case tar.TypeSymlink:
		e.kind, e.link, e.mode = symlink, h.Linkname, 0
	case tar.TypeLink:
		link, err := clean(h.Linkname)
		if err != nil {
			return nil, fmt.Errorf("%q: hard link to %w", h.Name, err)
		}
		return &entry{kind: hardlink, path: path, link: link}, nil
	case tar.TypeFifo:
		e.kind = fifo
	case tar.TypeChar, tar.TypeBlock:
		return e, nil
	default:
		return nil, fmt.Errorf("%q: entry of type %q, which no tree holds", h.Name, h.Typeflag)
	}
	if e.kind == file || e.kind == directory {
		if err := textACL(h); err != nil {
			return nil, err
		}
		for key, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(key, paxXattr); ok && portable(name) {
				e.xattrs = append(e.xattrs, xattr{name, value})
			}
		}
		order.Func(e.xattrs, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	}
	return e, nil
}

// textACL refuses an ACL that names users, as `tar --acls` writes it: only the system
// that wrote it knows their ids. Without the ACL, the owning group would get the
// rights of the mask.
func textACL(h *tar.Header) error {
	for _, which := range []string{"access", "default"} {
		text := h.PAXRecords["SCHILY.acl."+which]
		_, binary := h.PAXRecords[paxXattr+"system.posix_acl_"+which]
		if text != "" && !binary {
			return fmt.Errorf("%q has an ACL with users' names in place of numbers; write the archive with tar --xattrs --xattrs-include='*'", h.Name)
		}
	}
	return nil
}

// clean returns an archive's name as a path below the root, "" for the root itself. A
// leading slash means the root, as to every tar; ".." is an attack or a mistake
// (CVE-2022-23648 and many before it).
func clean(name string) (string, error) {
	parts := strings.Split(name, "/")
	kept := parts[:0]
	for _, p := range parts {
		switch p {
		case "", ".":
		case "..":
			return "", fmt.Errorf("%q, a path with \"..\" that would leave the tree", name)
		default:
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "/"), nil
}

// checkOwner refuses ids that no guest has: there, the file would be nobody's, and
// could not be changed.
func checkOwner(name string, uid, gid int) error {
	if uid < 0 || uid > maxID || gid < 0 || gid > maxID {
		return fmt.Errorf("%q: its owner is %d:%d, and guests have the ids 0 to %d only: change it (chown) before the image is made", shorten(name), uid, gid, maxID)
	}
	return nil
}

// maxID is the greatest id of a guest's users and groups.
const maxID = 65535
