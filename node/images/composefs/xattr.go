package composefs

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// What composefs tells overlayfs, and how it hides from it what an image has under
// the same names.
const (
	overlay = "trusted.overlay."
	escaped = overlay + "overlay."
	asUser  = "user.overlay."
)

// prefixes of names that EROFS stores as a number, in the order they are tried.
var prefixes = []struct {
	text string
	code uint8
}{
	{"user.", 1},
	{"system.posix_acl_access", 2},
	{"system.posix_acl_default", 3},
	{"trusted.", 4},
	{"security.", 6},
}

// split returns the number of a name's prefix, 0 if it has none of them, and the rest.
func split(name string) (uint8, string) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(name, p.text); ok {
			return p.code, rest
		}
	}
	return 0, name
}

// xattrs returns the extended attributes that an inode gets, sorted: of each its name, a
// zero byte and its value. The slice is valid until the next call.
func (w *writer) xattrs(i *inode) []string {
	x := w.scratch[:0]
	for _, a := range i.Xattrs {
		if rest, ok := strings.CutPrefix(a.Name, overlay); ok {
			a.Name = escaped + rest
		}
		x = append(x, a.Name+"\x00"+a.Value)
	}
	if i.outside() {
		x = append(x, metacopy(i.Verity))
		if i.Payload != "" {
			x = append(x, i.Payload)
		}
	}
	if i.isWhiteout() {
		x = set(x, escaped+"whiteout", "")
		x = set(x, asUser+"whiteout", "")
	}
	if i.hasWhiteouts {
		x = set(x, escaped+"whiteouts", "")
		x = set(x, asUser+"whiteouts", "")
		if w.version >= 1 {
			x = set(x, escaped+"opaque", "x")
			x = set(x, asUser+"opaque", "x")
		}
	}
	if i.node == &w.root {
		x = append(x, overlay+"opaque\x00y")
	}
	slices.Sort(x)
	w.scratch = x
	return x
}

// set adds an attribute, or replaces the one of its name.
func set(x []string, name, value string) []string {
	name += "\x00"
	for i := range x {
		if strings.HasPrefix(x[i], name) {
			x[i] = name + value
			return x
		}
	}
	return append(x, name+value)
}

// redirect is the attribute, before the object's path, that names where a file's data are.
const redirect = overlay + "redirect\x00/"

// metacopy returns the attribute of a file whose data are in another layer. Its value is
// nothing, or the fs-verity digest that they must have.
func metacopy(verity *[32]byte) string {
	const name = overlay + "metacopy\x00"
	if verity == nil {
		return name
	}
	return name + "\x00\x24\x00\x01" + string(verity[:]) // version, length, flags, SHA-256
}

// share finds the attributes that more than one inode has. They are written once,
// after the inodes. Most attributes are those of one file only, so the first round
// keeps no more of them than a hash.
func (w *writer) share() {
	seed := maphash.MakeSeed()
	again := map[uint64]bool{}
	for i := range w.inodes {
		for _, x := range w.xattrs(&w.inodes[i]) {
			h := maphash.String(seed, x)
			_, before := again[h]
			again[h] = before
		}
	}
	w.shared = map[string]uint32{}
	for i := range w.inodes {
		for _, x := range w.xattrs(&w.inodes[i]) {
			if again[maphash.String(seed, x)] {
				w.shared[x]++
			}
		}
	}
	for x, n := range w.shared {
		if n > 1 {
			w.sharedList = append(w.sharedList, x)
		} else {
			delete(w.shared, x) // the other one only had the same hash
		}
	}
	sort.Slice(w.sharedList, func(i, j int) bool { // the last name first, the longest value first
		aName, a, _ := strings.Cut(w.sharedList[i], "\x00")
		bName, b, _ := strings.Cut(w.sharedList[j], "\x00")
		if aName != bName {
			return aName > bName
		}
		if len(a) != len(b) {
			return len(a) > len(b)
		}
		return a > b
	})
	for _, x := range w.sharedList {
		w.shared[x] = uint32(w.sharedSize)
		w.sharedSize += uint64(len(appendXattr(w.buffer[:0], x)))
	}
}

// maxShared is the number of shared attributes that an inode can refer to; the others
// are written beside it.
const maxShared = 128

// appendXattr appends an attribute (struct erofs_xattr_entry).
func appendXattr(b []byte, x string) []byte {
	name, value, _ := strings.Cut(x, "\x00")
	code, rest := split(name)
	b = append(b, uint8(len(rest)), code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, rest...)
	b = append(b, value...)
	for n := 4 + len(rest) + len(value); n%4 != 0; n++ {
		b = append(b, 0)
	}
	return b
}

// appendXattrs appends all attributes of an inode (struct erofs_xattr_ibody_header).
func (w *writer) appendXattrs(b []byte, i *inode) []byte {
	attributes := w.xattrs(i)
	if len(attributes) == 0 {
		return b
	}
	filter, at := ^uint32(0), len(b)
	b = append(b, make([]byte, xattrHead)...)
	own := 0
	for _, x := range attributes {
		name, _, _ := strings.Cut(x, "\x00")
		code, rest := split(name)
		filter &^= 1 << (xxh32(rest, filterSeed+uint32(code)) % 32)
		place, ok := w.shared[x]
		if !ok || b[at+4] == maxShared {
			attributes[own] = x
			own++
			continue
		}
		b[at+4]++
		b = binary.LittleEndian.AppendUint32(b, (uint32(w.inodesEnd%blockSize)+place)/4)
	}
	binary.LittleEndian.PutUint32(b[at:], filter)
	for _, x := range attributes[:own] {
		b = appendXattr(b, x)
	}
	return b
}

// filterSeed begins the hashes of the filter that tells the kernel which names an
// inode does not have.
const filterSeed = 0x25BBE08F

// xxh32 is the hash XXH32 (xxHash's doc/xxhash_spec.md).
func xxh32(s string, seed uint32) uint32 {
	const p1, p2, p3, p4, p5 uint32 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	word := func(i int) uint32 {
		return uint32(s[i]) | uint32(s[i+1])<<8 | uint32(s[i+2])<<16 | uint32(s[i+3])<<24
	}
	i, h := 0, seed+p5
	if len(s) >= 16 {
		lanes := [4]uint32{seed + p1 + p2, seed + p2, seed, seed - p1}
		for ; i+16 <= len(s); i += 16 {
			for l := range lanes {
				lanes[l] = bits.RotateLeft32(lanes[l]+word(i+4*l)*p2, 13) * p1
			}
		}
		h = bits.RotateLeft32(lanes[0], 1) + bits.RotateLeft32(lanes[1], 7) +
			bits.RotateLeft32(lanes[2], 12) + bits.RotateLeft32(lanes[3], 18)
	}
	h += uint32(len(s))
	for ; i+4 <= len(s); i += 4 {
		h = bits.RotateLeft32(h+word(i)*p3, 17) * p4
	}
	for ; i < len(s); i++ {
		h = bits.RotateLeft32(h+uint32(s[i])*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}

// hasACL reports whether a node has a POSIX ACL.
func hasACL(n *node) bool {
	for _, x := range n.Xattrs {
		if x.Name == "system.posix_acl_access" || x.Name == "system.posix_acl_default" {
			return true
		}
	}
	return false
}

// reservedNode returns a whiteout of the root: it hides a directory of objects, where
// the objects are an ordinary layer below.
func reservedNode(root *node, name string) *node {
	n := &node{name: name, reserved: true}
	n.Mode, n.Nlink = unix.S_IFCHR|0o644, 1
	n.UID, n.GID, n.Mtime, n.Nsec = root.UID, root.GID, root.Mtime, root.Nsec
	for _, x := range root.Xattrs {
		if x.Name == "security.selinux" {
			n.Xattrs = []Xattr{x}
		}
	}
	return n
}
