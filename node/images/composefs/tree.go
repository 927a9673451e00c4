package composefs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What a description can hold.
const (
	maxName      = 255              // bytes of a name, and of an extended attribute's name
	maxTarget    = unix.PathMax - 1 // bytes of a symbolic link's target, and of an object's path
	maxContent   = 5000             // bytes of a file kept in the description itself
	maxXattrs    = 65535 / 2        // bytes of an entry's extended attributes; the other half is for composefs' own
	maxChunks    = blockSize / 4    // chunks of a file: their list has to fit in one block
	xattrHead    = 12               // bytes before the first extended attribute
	xattrPadding = 7                // at most: an attribute's head of 4 bytes and its alignment
)

// A Node is an entry of a tree: what stat(2), readlink(2) and getxattr(2) will say of
// it, and where its bytes are.
type Node struct {
	Mode     uint32 // type and permissions, as in st_mode
	UID, GID uint32
	Rdev     uint32 // of a device: as in st_rdev
	Nlink    uint32 // 0: counted; of a directory always counted
	Nsec     uint32 // of Mtime
	Mtime    int64  // seconds since 1970
	Size     uint64 // of a regular file

	// Payload is a symbolic link's target, or the path of a regular file's object below
	// the directory of objects: "ab/cdef…". Of a file that has a size and neither Payload
	// nor Content, overlayfs looks for the data under the file's own path.
	Payload string
	Content string    // of a small regular file that has no object
	Verity  *[32]byte // the fs-verity digest that its object must have
	Xattrs  []Xattr
}

// An Xattr is an extended attribute, with its whole name as "user.mime_type".
type Xattr struct{ Name, Value string }

// A node is an entry in its place.
type node struct {
	Node
	name     string
	children []*node // by name
	link     *node   // the file that this is another name of; nothing else counts then
	ino      uint32  // in the image that is being written
	reserved bool    // one of the root's whiteouts over the objects' directories
}

func (n *node) kind() uint32 { return n.Mode & unix.S_IFMT }
func (n *node) isDir() bool  { return n.kind() == unix.S_IFDIR }

// outside reports whether a file's bytes are in an object.
func (n *node) outside() bool {
	return n.kind() == unix.S_IFREG && n.Size > 0 && n.Content == ""
}

// isWhiteout reports whether an entry would be taken by overlayfs for the mark of a
// removed file.
func (n *node) isWhiteout() bool {
	return n.kind() == unix.S_IFCHR && n.Rdev == 0 && !n.reserved
}

// A Tree is a root filesystem that a description is written of. It holds nothing that
// cannot be described: each entry is checked when it is added.
type Tree struct {
	root      node
	entries   int // below the root
	whiteouts bool
}

// New returns a tree with nothing but its root directory.
func New(root Node) (*Tree, error) {
	t := &Tree{root: node{Node: root}}
	if !t.root.isDir() {
		return nil, fmt.Errorf("/: the root has mode %o: it has to be a directory", root.Mode)
	}
	if err := t.root.check(); err != nil {
		return nil, fmt.Errorf("/: %w", err)
	}
	return t, nil
}

// Add adds an entry. The path has no slash at its front: "usr/bin/ls". Entries come in
// walk order: a directory before what is in it, and the names in it bytewise.
func (t *Tree) Add(path string, n Node) error {
	added := &node{Node: n}
	if err := added.check(); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	if err := t.place(path, added); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	if added.outside() && added.Payload != "" {
		added.Payload = redirect + added.Payload
	}
	t.whiteouts = t.whiteouts || added.isWhiteout()
	return nil
}

// Link adds another name of a file that is there already.
func (t *Tree) Link(path, target string) error {
	to := t.find(target)
	switch {
	case to == nil:
		return fmt.Errorf("%q: a hard link to %q, which does not come before it", path, target)
	case to.isDir():
		return fmt.Errorf("%q: a hard link to %q, which is a directory", path, target)
	}
	if to.link != nil {
		to = to.link
	}
	if err := t.place(path, &node{link: to}); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

// place puts an entry into its directory.
func (t *Tree) place(path string, n *node) error {
	dir, name := &t.root, path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = t.find(path[:i]), path[i+1:]
	}
	switch {
	case name == "":
		return errors.New("its name is empty")
	case name == "." || name == "..":
		return fmt.Errorf("every directory has %q already", name)
	case len(name) > maxName:
		return fmt.Errorf("its name has %d bytes: %d are possible", len(name), maxName)
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("its name has a zero byte")
	case dir == nil:
		return errors.New("its directory does not come before it")
	case !dir.isDir():
		return errors.New("what it is in is no directory")
	}
	if last := len(dir.children) - 1; last >= 0 {
		switch before := dir.children[last].name; {
		case before == name:
			return errors.New("it is there twice")
		case before > name:
			return fmt.Errorf("it comes after %q: names have to be sorted bytewise", before)
		}
	}
	n.name = strings.Clone(name) // the path may be a part of a long text
	t.entries++
	dir.children = append(dir.children, n)
	return nil
}

// find returns the entry of a path below the root, or nil.
func (t *Tree) find(path string) *node {
	n := &t.root
	for more := true; more; {
		var name string
		name, path, more = strings.Cut(path, "/")
		i, found := slices.BinarySearchFunc(n.children, name, func(c *node, name string) int { return strings.Compare(c.name, name) })
		if !found {
			return nil
		}
		n = n.children[i]
	}
	return n
}

// check reports why an entry cannot be described.
func (n *node) check() error {
	if n.Mode > 0xffff {
		return fmt.Errorf("mode %o has more bits than a mode has", n.Mode)
	}
	if n.Nsec >= 1e9 {
		return fmt.Errorf("%d nanoseconds are more than a second", n.Nsec)
	}
	if strings.IndexByte(n.Payload, 0) >= 0 {
		return errors.New("its target or its object's path has a zero byte")
	}
	switch n.kind() {
	case unix.S_IFREG:
		if err := n.checkFile(); err != nil {
			return err
		}
	case unix.S_IFLNK:
		if n.Payload == "" || len(n.Payload) > maxTarget {
			return fmt.Errorf("the link's target has %d bytes: 1 to %d are possible", len(n.Payload), maxTarget)
		}
		n.Size = uint64(len(n.Payload))
	case unix.S_IFDIR, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return fmt.Errorf("mode %o names no type of file", n.Mode)
	}
	return n.checkXattrs()
}

func (n *node) checkFile() error {
	if n.Content != "" {
		if uint64(len(n.Content)) != n.Size {
			return fmt.Errorf("its size is %d, and its content has %d bytes", n.Size, len(n.Content))
		}
		if n.Size > maxContent {
			return fmt.Errorf("a content of %d bytes belongs in an object: at most %d can be in the description", n.Size, maxContent)
		}
		return nil
	}
	if n.Size > maxChunks<<maxChunkBits {
		return fmt.Errorf("its size, %d, is larger than EROFS can hold", n.Size)
	}
	if len(n.Payload) > maxTarget {
		return fmt.Errorf("its object's path has %d bytes: %d are possible", len(n.Payload), maxTarget)
	}
	if n.Payload == "" {
		return nil
	}
	for part := range strings.SplitSeq(n.Payload, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("its object's path %q is not below the directory of objects", n.Payload)
		}
	}
	return nil
}

func (n *node) checkXattrs() error {
	size := xattrHead
	for i, x := range n.Xattrs {
		switch {
		case x.Name == "" || len(x.Name) > maxName:
			return fmt.Errorf("an extended attribute's name has %d bytes: 1 to %d are possible", len(x.Name), maxName)
		case strings.IndexByte(x.Name, 0) >= 0:
			return errors.New("an extended attribute's name has a zero byte")
		}
		for _, y := range n.Xattrs[:i] {
			if x.Name == y.Name {
				return fmt.Errorf("the extended attribute %q is there twice", x.Name)
			}
		}
		if size += xattrPadding + len(x.Name) + len(x.Value); size > maxXattrs {
			return fmt.Errorf("its extended attributes have more than %d bytes", maxXattrs)
		}
	}
	return nil
}
