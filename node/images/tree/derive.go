package tree

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/order"
)

// ownMark marks, in the manifest of a guest's own tree, the files that the guest had in
// its upper layer, and the directories in which nothing of the image below is seen. It is
// the manifest's alone: no file has such an attribute.
const ownMark = "vsfleet.own"

// Own reports whether a file or directory has the mark of a guest's own.
func (e *Entry) Own() bool {
	return slices.ContainsFunc(e.xattrs, func(x xattr) bool { return x.name == ownMark })
}

func (e *Entry) markOwn() {
	if !e.Own() {
		e.xattrs = append(slices.Clone(e.xattrs), xattr{name: ownMark}) // the last by name
	}
}

// OwnFile returns the entry of an open regular file that a guest has in its upper layer,
// without its content. why is not empty if no manifest can hold the file as it is.
func OwnFile(f *os.File, path string) (e *Entry, st unix.Stat_t, why string, err error) {
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, st, "", fmt.Errorf("stat %s: %w", path, err)
	}
	all, err := xattrs(int(f.Fd()), func(string) bool { return true })
	if err != nil {
		return nil, st, "", fmt.Errorf("read attributes of %s: %w", path, err)
	}
	e = &Entry{entry: entry{
		kind: file, path: path, mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, size: st.Size, mtime: st.Mtim.Sec, nsec: uint32(st.Mtim.Nsec),
	}}
	for _, x := range all {
		switch {
		case portable(x.name):
			e.xattrs = append(e.xattrs, x)
		case x.name != "trusted.overlay.origin":
			return nil, st, "attributes", nil
		}
	}
	e.markOwn()
	if checkOwner(path, int(st.Uid), int(st.Gid)) != nil || e.mtime < -1<<31 || e.mtime > maxTime || e.size == 0 {
		return nil, st, "attributes", nil
	}
	return e, st, "", nil
}

// SetObject says what the content of a file is.
func (e *Entry) SetObject(object string) { e.object = object }

// OwnDirectory returns the entry of a directory that is in an upper layer as well, where
// its attributes are; alone: nothing of the image below is seen in it.
func OwnDirectory(path string, alone bool) *Entry {
	e := &Entry{entry: entry{kind: directory, path: path, mode: 0o755}}
	if alone {
		e.markOwn()
	}
	return e
}

// OwnEntries returns the files that are marked as a guest's own, and the directories that
// they need or that are marked themselves.
func OwnEntries(manifest io.Reader) (own []*Entry, err error) {
	var all []*Entry
	need := map[string]bool{}
	_, err = ReadManifest(manifest, func(e *Entry) error {
		if e.Own() {
			for dir := e.path; dir != ""; dir = parent(dir) {
				need[dir] = true
			}
		}
		if e.kind == directory || e.Own() {
			all = append(all, e)
		}
		return nil
	})
	return slices.DeleteFunc(all, func(e *Entry) bool { return !need[e.path] }), err
}

func parent(path string) string {
	return path[:max(strings.LastIndexByte(path, '/'), 0)]
}

// Derive writes the manifest of a tree with a guest's own entries (OwnFile, OwnDirectory)
// in place of what it has there. A file with several names keeps the others.
func Derive(from io.Reader, own []*Entry, manifest *bufio.Writer) (Sum, error) {
	add := make(map[string]*Entry, len(own))
	for _, e := range own {
		add[e.path] = e
	}
	var kept []*Entry
	dropped := map[string]*Entry{}
	gone := "" // what is below this directory is not seen
	_, err := ReadManifest(from, func(e *Entry) error {
		a := add[e.path]
		switch {
		case gone != "" && strings.HasPrefix(e.path, gone+"/"):
			dropped[e.path] = e
		case a == nil:
			kept = append(kept, e)
		case a.kind == directory && e.kind == directory:
			delete(add, e.path)
			kept = append(kept, e)
			if a.Own() {
				e.markOwn()
				gone = e.path
			}
		default:
			dropped[e.path] = e
			gone = e.path
		}
		return nil
	})
	if err != nil {
		return Sum{}, err
	}
	for _, e := range add {
		kept = append(kept, e)
	}
	order.Func(kept, func(a, b *Entry) int { return strings.Compare(walkKey(a.path), walkKey(b.path)) })
	s := newSummer(manifest)
	moved := map[string]string{} // the first name that is left of a file, by the one that it had
	for _, e := range kept {
		if was := dropped[e.link]; e.kind == hardlink && was != nil {
			e = &Entry{entry: e.entry}
			if e.link = moved[was.path]; e.link == "" {
				moved[was.path] = e.path
				first := *was
				first.path = e.path
				e = &first
			}
		}
		content, err := e.content()
		if err != nil {
			return Sum{}, err
		}
		s.add(&e.entry, content)
	}
	return s.done(), nil
}

// walkKey orders paths as a walk does: what is in a directory before what follows it.
func walkKey(path string) string { return strings.ReplaceAll(path, "/", "\x00") }

// content returns the sha256 of a file's content.
func (e *Entry) content() ([]byte, error) {
	switch {
	case e.kind != file:
		return nil, nil
	case e.object == "":
		sum := sha256.Sum256(nil)
		return sum[:], nil
	}
	return hex.DecodeString(e.object)
}
