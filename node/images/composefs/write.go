package composefs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The numbers of EROFS' layout.
const (
	blockBits    = 12
	blockSize    = 1 << blockBits
	slotSize     = 32 // inodes begin at multiples of it; an inode's number, its nid, counts them
	superOffset  = 1024
	superSize    = 128
	compactSize  = 32 // of an inode whose time, owner and size fit
	extendedSize = 64
	direntSize   = 12
	maxChunkBits = blockBits + 31

	flatPlain  = 0 // data in blocks
	flatInline = 2 // the rest of the data that fills no block follows the inode
	chunkBased = 4 // a list of chunks follows the inode

	magic        = 0xE0F5E1E2
	compatMtime  = 2
	compatFilter = 4

	headerMagic   = 0xd078629a // composefs' own header, before EROFS' superblock
	headerVersion = 1
	flagACL       = 1
)

// An inode is a node with its place in the image.
type inode struct {
	*node
	parent       uint32
	nid          uint32
	nlink        uint32
	blocks       uint32 // of data, after all inodes
	tail         uint16 // bytes of data that follow the inode
	compact      bool
	hasWhiteouts bool
}

// A writer writes one image.
type writer struct {
	version    int
	root       node    // a copy, with its whiteouts
	inodes     []inode // in the order of the image: breadth first
	minMtime   int64   // the oldest time, which compact inodes have
	minNsec    uint32
	acl        bool
	inodesEnd  uint64
	sharedList []Xattr
	shared     map[Xattr]uint32 // places from inodesEnd on
	sharedSize uint64
	dataBlocks uint64

	out      *bufio.Writer
	verity   Verity
	position uint64
	next     uint64 // the block that the next inode with blocks gets
	err      error

	scratch, own []Xattr
	entries      []entry
	buffer       []byte
}

// An entry is a line of a directory.
type entry struct {
	name string
	ino  uint32
}

// Write writes the description of a tree, in one pass, and returns its digest: the
// fs-verity digest of the image, which composefs-info measure-file prints. Equal trees
// have equal images, byte by byte those of mkcomposefs. Two Writes of one tree must
// not run at once.
func (t *Tree) Write(to io.Writer) (digest [32]byte, err error) {
	version := 0
	if t.whiteouts {
		version = 1 // the whiteouts of version 0 were not seen by all kernels
	}
	return t.write(to, version)
}

func (t *Tree) write(to io.Writer, version int) (digest [32]byte, err error) {
	w := &writer{version: version, root: t.root, inodes: make([]inode, 0, 1+256+t.entries)}
	w.out = bufio.NewWriterSize(io.MultiWriter(to, &w.verity), 16*blockSize)
	w.addReserved()
	w.order()
	w.share()
	w.layout()
	w.writeSuper()
	for i := range w.inodes {
		w.writeInode(&w.inodes[i])
	}
	w.pad(slotSize)
	for _, x := range w.sharedList {
		w.put(appendXattr(w.buffer[:0], x))
	}
	w.pad(blockSize)
	for i := range w.inodes {
		w.writeData(&w.inodes[i])
	}
	if w.err == nil {
		w.err = w.out.Flush()
	}
	if w.err != nil {
		return digest, fmt.Errorf("writing the description: %w", w.err)
	}
	return w.verity.Sum(), nil
}

// addReserved adds the whiteouts 00 to ff to the root.
func (w *writer) addReserved() {
	children := slices.Clone(w.root.children)
	for i := range 256 {
		name := fmt.Sprintf("%02x", i)
		at, found := slices.BinarySearchFunc(children, name, func(c *node, name string) int { return strings.Compare(c.name, name) })
		if !found {
			children = slices.Insert(children, at, reservedNode(&w.root, name))
		}
	}
	w.root.children = children
}

// order lists all inodes, directory by directory.
func (w *writer) order() {
	w.minMtime, w.minNsec = w.root.Mtime, w.root.Nsec
	w.inodes = append(w.inodes, inode{node: &w.root})
	for at := 0; at < len(w.inodes); at++ {
		n := w.inodes[at].node
		n.ino = uint32(at)
		w.acl = w.acl || hasACL(n)
		if n.Mtime < w.minMtime || n.Mtime == w.minMtime && n.Nsec < w.minNsec {
			w.minMtime, w.minNsec = n.Mtime, n.Nsec
		}
		w.inodes[at].nlink = 1
		if n.isDir() {
			w.inodes[at].nlink = 2
		}
		for _, c := range n.children {
			if c.link != nil {
				continue
			}
			w.inodes = append(w.inodes, inode{node: c, parent: uint32(at)})
			if c.isDir() {
				w.inodes[at].nlink++
			}
			w.inodes[at].hasWhiteouts = w.inodes[at].hasWhiteouts || c.isWhiteout()
		}
	}
	for i := range w.inodes {
		for _, c := range w.inodes[i].children {
			if c.link != nil {
				w.inodes[c.link.ino].nlink++
			}
		}
	}
	for i := range w.inodes {
		if n := w.inodes[i].node; !n.isDir() && n.Nlink > 0 {
			w.inodes[i].nlink = n.Nlink
		}
	}
}

// dirents lists a directory's entries with . and .. in their places. The slice is
// valid until the next call.
func (w *writer) dirents(i *inode) []entry {
	e := w.entries[:0]
	dots := []entry{{".", i.ino}, {"..", i.parent}}
	for _, c := range i.children {
		for len(dots) > 0 && dots[0].name < c.name {
			e = append(e, dots[0])
			dots = dots[1:]
		}
		if c.link != nil {
			e = append(e, entry{c.name, c.link.ino})
		} else {
			e = append(e, entry{c.name, c.ino})
		}
	}
	w.entries = append(e, dots...)
	return w.entries
}

// fill returns the number of a directory's entries that fit in a block, and their
// bytes.
func fill(e []entry) (n, size int) {
	for n < len(e) && size+direntSize+len(e[n].name) <= blockSize {
		size += direntSize + len(e[n].name)
		n++
	}
	return n, size
}

// layout gives each inode its place.
func (w *writer) layout() {
	pos := uint64(superOffset + superSize)
	for k := range w.inodes {
		i := &w.inodes[k]
		w.measure(i)
		_, _, xattrs := w.layXattrs(w.xattrs(i))
		pos = roundUp(pos, slotSize)
		pos += i.gap(pos, i.headSize()+xattrs)
		i.nid = uint32(pos / slotSize)
		pos += uint64(i.headSize() + xattrs + int(i.tail))
		w.dataBlocks += uint64(i.blocks)
	}
	w.inodesEnd = roundUp(pos, slotSize)
}

// measure finds how much data an inode has in blocks and how much follows it, and
// which form it needs.
func (w *writer) measure(i *inode) {
	size := i.Size
	switch {
	case i.isDir():
		size = w.measureDir(i)
	case i.kind() == unix.S_IFLNK:
		i.tail = uint16(len(i.Payload))
	case i.outside():
		_, chunks := chunking(i.Size)
		i.tail = uint16(4 * chunks)
	case i.kind() == unix.S_IFREG && i.Size > 0:
		i.blocks, i.tail = uint32(i.Size/blockSize), uint16(i.Size%blockSize)
		if i.tail > blockSize/2 {
			i.blocks, i.tail = i.blocks+1, 0
		}
	case i.isWhiteout():
		size = 0
	}
	i.compact = i.Mtime == w.minMtime && i.Nsec == w.minNsec && size <= math.MaxUint32 &&
		i.nlink <= math.MaxUint16 && i.UID <= math.MaxUint16 && i.GID <= math.MaxUint16
}

func (w *writer) measureDir(i *inode) uint64 {
	for e := w.dirents(i); len(e) > 0; {
		n, size := fill(e)
		e = e[n:]
		if len(e) > 0 || size > blockSize/2 {
			i.blocks++
		} else {
			i.tail = uint16(size)
		}
	}
	return i.dirSize()
}

func (i *inode) dirSize() uint64 { return uint64(i.blocks)*blockSize + uint64(i.tail) }

func (i *inode) headSize() int {
	if i.compact {
		return compactSize
	}
	return extendedSize
}

// chunking returns the size of the chunks of a file, as a power of two, and their
// number: as few as possible.
func chunking(size uint64) (exponent, chunks int) {
	exponent = min(max(bits.Len64(size-1), blockBits), maxChunkBits)
	return exponent, int((size-1)>>exponent) + 1
}

// gap returns how many bytes stay free before an inode, so that the data that follows
// it lies within one block. What fits nowhere goes into a block of its own.
func (i *inode) gap(pos uint64, head int) uint64 {
	tail := uint64(i.tail)
	toBlock := roundUp(pos, blockSize) - pos
	if i.kind() == unix.S_IFLNK { // the whole inode stays within a block
		total := uint64(head) + tail
		if total >= blockSize {
			i.blocks, i.tail = 1, 0
		}
		if pos/blockSize != (pos+total-1)/blockSize {
			return toBlock
		}
		return 0
	}
	left := func(pos uint64) uint64 { return blockSize - (pos+uint64(head))%blockSize }
	if left(pos) >= tail {
		return 0
	}
	gap := roundUp(left(pos), slotSize)
	if left(pos+gap) >= tail {
		return gap
	}
	i.blocks, i.tail = i.blocks+1, 0
	return toBlock
}

func roundUp[T int | uint64](n, to T) T { return (n + to - 1) / to * to }

// writeSuper writes composefs' header and EROFS' superblock.
func (w *writer) writeSuper() {
	le := binary.LittleEndian
	var h [superOffset + superSize]byte
	le.PutUint32(h[0:], headerMagic)
	le.PutUint32(h[4:], headerVersion)
	if w.acl {
		le.PutUint32(h[8:], flagACL)
	}
	le.PutUint32(h[12:], uint32(w.version))
	data := roundUp(w.inodesEnd+w.sharedSize, blockSize) / blockSize
	w.next = data
	s := h[superOffset:]
	le.PutUint32(s[0:], magic)
	le.PutUint32(s[8:], compatMtime|compatFilter)
	s[12] = blockBits
	le.PutUint16(s[14:], uint16(w.inodes[0].nid))
	le.PutUint64(s[16:], uint64(len(w.inodes)))
	le.PutUint64(s[24:], uint64(w.minMtime))
	le.PutUint32(s[32:], w.minNsec)
	le.PutUint32(s[36:], uint32(data+w.dataBlocks))
	le.PutUint32(s[40:], 0) // the block that nids count from
	le.PutUint32(s[44:], uint32(w.inodesEnd/blockSize))
	w.put(h[:])
}

// writeInode writes an inode, its extended attributes and the data that follows it.
func (w *writer) writeInode(i *inode) {
	w.zeros(uint64(i.nid)*slotSize - w.position)
	shared, own, xattrs := w.layXattrs(w.xattrs(i))
	b := w.appendInode(w.buffer[:0], i, xattrs)
	if xattrs > 0 {
		b = w.appendXattrs(b, shared, own)
	}
	switch {
	case i.tail == 0:
	case i.isDir():
		e := w.dirents(i)
		for range i.blocks {
			n, _ := fill(e)
			e = e[n:]
		}
		b = w.appendDirents(b, e)
	case i.kind() == unix.S_IFLNK:
		b = append(b, i.Payload...)
	case i.outside():
		b = appendHoles(b, int(i.tail)/4)
	default:
		b = append(b, i.Content[len(i.Content)-int(i.tail):]...)
	}
	w.put(b)
	w.buffer = b
}

// appendInode appends the inode itself.
func (w *writer) appendInode(b []byte, i *inode, xattrs int) []byte {
	le := binary.LittleEndian
	layout, size, union := uint16(flatPlain), uint64(0), uint32(0)
	if i.tail > 0 {
		layout = flatInline
	}
	if i.blocks > 0 {
		union = uint32(w.next) // raw_blkaddr
		w.next += uint64(i.blocks)
	}
	mode := i.Mode
	switch i.kind() {
	case unix.S_IFDIR:
		size = i.dirSize()
	case unix.S_IFLNK:
		size = i.Size
	case unix.S_IFREG:
		size = i.Size
		if i.outside() {
			layout = chunkBased
			exponent, _ := chunking(i.Size)
			union = union&^0xffff | uint32(exponent-blockBits)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		union = i.Rdev
	}
	if i.isWhiteout() {
		mode, union = mode&^unix.S_IFMT|unix.S_IFREG, 0
	}
	var icount uint16
	if xattrs > 0 {
		icount = uint16((xattrs-xattrHead)/4 + 1)
	}
	if i.compact {
		b = le.AppendUint16(b, layout<<1)
		b = le.AppendUint16(b, icount)
		b = le.AppendUint16(b, uint16(mode))
		b = le.AppendUint16(b, uint16(i.nlink))
		b = le.AppendUint32(b, uint32(size))
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, union)
		b = le.AppendUint32(b, i.ino)
		b = le.AppendUint16(b, uint16(i.UID))
		b = le.AppendUint16(b, uint16(i.GID))
		return le.AppendUint32(b, 0)
	}
	b = le.AppendUint16(b, layout<<1|1)
	b = le.AppendUint16(b, icount)
	b = le.AppendUint16(b, uint16(mode))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, size)
	b = le.AppendUint32(b, union)
	b = le.AppendUint32(b, i.ino)
	b = le.AppendUint32(b, i.UID)
	b = le.AppendUint32(b, i.GID)
	b = le.AppendUint64(b, uint64(i.Mtime))
	b = le.AppendUint32(b, i.Nsec)
	b = le.AppendUint32(b, i.nlink)
	return append(b, make([]byte, 16)...)
}

// appendDirents appends the entries of one block of a directory: their heads, then
// their names.
func (w *writer) appendDirents(b []byte, e []entry) []byte {
	at := len(e) * direntSize
	for _, x := range e {
		i := &w.inodes[x.ino]
		b = binary.LittleEndian.AppendUint64(b, uint64(i.nid))
		b = binary.LittleEndian.AppendUint16(b, uint16(at))
		b = append(b, i.fileType(), 0)
		at += len(x.name)
	}
	for _, x := range e {
		b = append(b, x.name...)
	}
	return b
}

// fileType returns the type that a directory's entry has.
func (i *inode) fileType() byte {
	switch i.kind() {
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		if i.isWhiteout() {
			return 1 // it is written as a regular file
		}
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	case unix.S_IFLNK:
		return 7
	}
	return 1
}

// appendHoles appends chunks without data.
func appendHoles(b []byte, n int) []byte {
	for range n {
		b = binary.LittleEndian.AppendUint32(b, math.MaxUint32)
	}
	return b
}

// writeData writes the blocks of an inode.
func (w *writer) writeData(i *inode) {
	if i.blocks == 0 {
		return
	}
	switch {
	case i.isDir():
		e := w.dirents(i)
		for range i.blocks {
			n, _ := fill(e)
			w.buffer = w.appendDirents(w.buffer[:0], e[:n])
			w.put(w.buffer)
			w.pad(blockSize)
			e = e[n:]
		}
	case i.kind() == unix.S_IFLNK:
		w.put([]byte(i.Payload))
	case i.outside():
		w.put(appendHoles(w.buffer[:0], maxChunks))
	default:
		w.put([]byte(i.Content[:len(i.Content)-int(i.tail)]))
	}
	w.pad(blockSize)
}

// put writes bytes, if nothing has failed before.
func (w *writer) put(b []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(b)
	}
	w.position += uint64(len(b))
}

func (w *writer) pad(to uint64) { w.zeros(roundUp(w.position, to) - w.position) }

func (w *writer) zeros(n uint64) { w.put(zeroBlock[:n]) }

var zeroBlock [2 * blockSize]byte
