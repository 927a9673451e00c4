package composefs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

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

// A writer writes one image.
type writer struct {
	version    int
	root       node    // a copy, with its whiteouts
	inodes     []inode // in the order of the image: breadth first
	minMtime   int64   // the oldest time, which compact inodes have
	minNsec    uint32
	acl        bool
	inodesEnd  uint64
	sharedList []string
	shared     map[string]uint32 // places from inodesEnd on
	sharedSize uint64
	dataBlocks uint64

	to       io.Writer
	out      *bufio.Writer
	verity   Verity
	position uint64
	next     uint64 // the block that the next inode with blocks gets
	err      error

	scratch []string
	entries []entry
	buffer  []byte
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
		version = 1 // which has overlay.opaque=x where they are: kernels from 6.8 on look for it
	}
	return t.write(to, version)
}

func (t *Tree) write(to io.Writer, version int) (digest [32]byte, err error) {
	w := &writer{to: to, version: version, root: t.root, inodes: make([]inode, 0, 1+256+t.entries)}
	w.out = bufio.NewWriterSize((*sink)(w), 16*blockSize)
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

// A sink takes what is written, in large parts.
type sink writer

func (w *sink) Write(p []byte) (int, error) {
	_, _ = w.verity.Write(p)
	return w.to.Write(p)
}

// addReserved adds the whiteouts 00 to ff to the root.
func (w *writer) addReserved() {
	const digits = "0123456789abcdef"
	children, given := make([]*node, 0, 256+len(w.root.children)), w.root.children
	for i := range 256 {
		name := string([]byte{digits[i/16], digits[i%16]})
		for len(given) > 0 && given[0].name < name {
			children, given = append(children, given[0]), given[1:]
		}
		if len(given) == 0 || given[0].name != name {
			children = append(children, reservedNode(&w.root, name))
		}
	}
	w.root.children = append(children, given...)
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

// layout gives each inode its place.
func (w *writer) layout() {
	pos := uint64(superOffset + superSize)
	for k := range w.inodes {
		i := &w.inodes[k]
		w.measure(i)
		w.buffer = w.appendXattrs(w.buffer[:0], i)
		xattrs := len(w.buffer)
		pos = roundUp(pos, slotSize)
		pos += i.gap(pos, i.headSize()+xattrs)
		i.nid = uint32(pos / slotSize)
		pos += uint64(i.headSize() + xattrs + int(i.tail))
		w.dataBlocks += uint64(i.blocks)
	}
	w.inodesEnd = roundUp(pos, slotSize)
}

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
	b := append(w.buffer[:0], make([]byte, i.headSize())...)
	b = w.appendXattrs(b, i)
	w.putHead(b, i)
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
