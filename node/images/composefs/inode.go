package composefs

import (
	"encoding/binary"
	"math"
	"math/bits"

	"golang.org/x/sys/unix"
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

// putHead fills in an inode, which its attributes follow (struct erofs_inode_compact or
// erofs_inode_extended).
func (w *writer) putHead(b []byte, i *inode) {
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
			union = union&^0xffff | uint32(exponent-blockBits) // over a part of raw_blkaddr, as mkcomposefs
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		union = i.Rdev
	}
	if i.isWhiteout() {
		mode, union = mode&^unix.S_IFMT|unix.S_IFREG, 0
	}
	var icount uint16
	if xattrs := len(b) - i.headSize(); xattrs > 0 {
		icount = uint16((xattrs-xattrHead)/4 + 1)
	}
	le.PutUint16(b[2:], icount)
	le.PutUint16(b[4:], uint16(mode))
	le.PutUint32(b[16:], union)
	le.PutUint32(b[20:], i.ino)
	if i.compact {
		le.PutUint16(b[0:], layout<<1)
		le.PutUint16(b[6:], uint16(i.nlink))
		le.PutUint32(b[8:], uint32(size))
		le.PutUint16(b[24:], uint16(i.UID))
		le.PutUint16(b[26:], uint16(i.GID))
		return
	}
	le.PutUint16(b[0:], layout<<1|1)
	le.PutUint64(b[8:], size)
	le.PutUint32(b[24:], i.UID)
	le.PutUint32(b[28:], i.GID)
	le.PutUint64(b[32:], uint64(i.Mtime))
	le.PutUint32(b[40:], i.Nsec)
	le.PutUint32(b[44:], i.nlink)
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
