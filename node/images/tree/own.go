package tree

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// Own is what the tree of a guest's own has in place of its image (see Derive): files that
// belong to the guest's upper layer and are not in it.
type Own struct {
	files map[string]*Entry
	names map[string][]string // of the files, by directory
	alone map[string]bool     // directories in which nothing of the image is seen
	image map[string]bool     // all paths of the image
	open  func(object string) (*os.File, error)
}

// NewOwn returns an empty one. open opens a content of the store.
func NewOwn(open func(object string) (*os.File, error)) *Own {
	return &Own{files: map[string]*Entry{}, names: map[string][]string{}, alone: map[string]bool{}, image: map[string]bool{}, open: open}
}

// Add takes an entry of the guest's own tree in.
func (o *Own) Add(e *Entry) {
	switch {
	case !e.Own():
	case e.kind == directory:
		o.alone[e.path] = true
	default:
		o.files[e.path] = e
		o.names[parent(e.path)] = append(o.names[parent(e.path)], path.Base(e.path))
	}
}

// AddImage takes an entry of the image in that the tree was derived from.
func (o *Own) AddImage(e *Entry) { o.image[e.path] = true }

// A below is where the lower layer has what is seen in a directory of the upper one.
type below struct {
	path   string
	hidden bool // nowhere
}

// join returns where the lower layer has what is seen as an entry of the directory.
func (b below) join(e *entry) below {
	to, _ := e.attribute(redirect)
	if strings.HasPrefix(to, "/") {
		return below{path: path.Clean(to)[1:]}
	}
	if to == "" {
		to = path.Base(e.path)
	}
	return below{path.Join(b.path, to), b.hidden}
}

func (e *entry) attribute(name string) (value string, there bool) {
	for _, x := range e.xattrs {
		if x.name == name {
			return x.value, true
		}
	}
	return "", false
}

func (e *entry) without(names ...string) {
	var kept []xattr
	for _, x := range e.xattrs {
		if !slices.Contains(names, x.name) {
			kept = append(kept, x)
		}
	}
	e.xattrs = kept
}

const (
	opaque   = "trusted.overlay.opaque"
	redirect = "trusted.overlay.redirect"
)

// missing returns the files that are seen in a directory of the upper layer besides what is
// in it, by name.
func (o *Own) missing(at below, names []string) map[string]*Entry {
	if o == nil || at.hidden {
		return nil
	}
	list := map[string]*Entry{}
	for _, name := range o.names[at.path] {
		list[name] = o.files[path.Join(at.path, name)]
	}
	for _, name := range names {
		delete(list, name)
	}
	return list
}

// drops reports whether a whiteout hides nothing of the image.
func (o *Own) drops(at below, name string) bool {
	return o != nil && !at.hidden && (o.isAlone(at.path) || !o.image[path.Join(at.path, name)])
}

func (o *Own) isAlone(dir string) bool {
	for ; dir != ""; dir = parent(dir) {
		if o.alone[dir] {
			return true
		}
	}
	return false
}

// enter returns where the lower layer has what is seen in a directory, and has the directory
// hide the image if the guest's own tree does that.
func (o *Own) enter(at below, e *entry) below {
	if o == nil {
		return at
	}
	to := at.join(e)
	if v, _ := e.attribute(opaque); v == "y" {
		to.hidden = true
	}
	if !to.hidden && o.isAlone(to.path) {
		e.without(opaque, redirect)
		e.xattrs = append(e.xattrs, xattr{opaque, "y"})
	}
	return to
}

// of returns the guest's own file below one that has only attributes in the upper layer.
func (o *Own) of(at below, e *entry) *Entry {
	if o == nil {
		return nil
	}
	to := at.join(e)
	if _, only := e.attribute(metacopy); !only || to.hidden {
		return nil
	}
	return o.files[to.path]
}

// ownContent is a content of the store in the place of a file's own. Reading it to its end
// finds whether it is damaged.
type ownContent struct {
	file    *os.File
	object  string
	left    int64
	sum     hash.Hash
	id      string // as identify returns them
	changed int64
}

// content opens the content of a file. upper is what the upper layer has of it, if anything.
func (o *Own) content(f *Entry, upper *os.File) (c *ownContent, err error) {
	c = &ownContent{object: f.object, left: f.size, sum: sha256.New()}
	if upper != nil {
		c.id, c.changed, err = identify(upper)
	}
	if err == nil {
		c.file, err = o.open(f.object)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shorten(f.path), err)
	}
	c.id = fmt.Sprintf("%x %s", sha256.Sum256(f.line([]byte(f.object))), c.id)
	return c, nil
}

func (c *ownContent) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	c.sum.Write(b[:n])
	c.left -= int64(n)
	if (c.left <= 0 || err == io.EOF) && hex.EncodeToString(c.sum.Sum(nil)) != c.object {
		err = fmt.Errorf("object %s is damaged: see vsnode image check", c.object)
	}
	return n, err
}
