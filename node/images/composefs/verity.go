package composefs

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// A Verity computes the digest that fs-verity has of what is written to it, with SHA-256,
// blocks of 4096 bytes and no salt: the one that composefs names files by. The zero
// value is ready.
type Verity struct {
	size   uint64
	block  hash.Hash // of the data's last block, which has size%blockSize bytes
	levels []level   // of the tree of digests; the first has those of the data's blocks
}

// A level has the digests of the blocks of the level below it. Its own last block is
// not yet full.
type level struct {
	digests uint64
	block   []byte
}

// Write takes more data. It never fails.
func (v *Verity) Write(p []byte) (int, error) {
	n := len(p)
	if v.block == nil {
		v.block = sha256.New()
	}
	for len(p) > 0 {
		part := p[:min(len(p), blockSize-int(v.size%blockSize))]
		_, _ = v.block.Write(part)
		v.size += uint64(len(part))
		p = p[len(part):]
		if v.size%blockSize == 0 {
			v.closeBlock()
		}
	}
	return n, nil
}

// closeBlock takes the digest of a whole block of data.
func (v *Verity) closeBlock() {
	v.add(0, v.block.Sum(nil))
	v.block.Reset()
}

// add adds the digest of a block to a level.
func (v *Verity) add(i int, digest []byte) {
	if i == len(v.levels) {
		v.levels = append(v.levels, level{})
	}
	l := &v.levels[i]
	l.block = append(l.block, digest...)
	if l.digests++; len(l.block) == blockSize {
		v.closeLevel(i)
	}
}

// closeLevel takes the digest of a level's block, filled up with zeros.
func (v *Verity) closeLevel(i int) {
	l := &v.levels[i]
	sum := sha256.Sum256(append(l.block, make([]byte, blockSize-len(l.block))...))
	l.block = l.block[:0]
	v.add(i+1, sum[:])
}

// Sum returns the digest. Nothing can be written after it.
func (v *Verity) Sum() [32]byte {
	var d [256]byte // struct fsverity_descriptor
	d[0], d[1], d[2] = 1, 1, blockBits
	binary.LittleEndian.PutUint64(d[8:], v.size)
	if rest := v.size % blockSize; rest > 0 {
		_, _ = v.block.Write(make([]byte, blockSize-rest))
		v.closeBlock()
	}
	for i := 0; i < len(v.levels); i++ {
		switch l := &v.levels[i]; {
		case l.digests == 1: // the root of the tree
			copy(d[16:], l.block)
		case len(l.block) > 0:
			v.closeLevel(i)
		}
	}
	return sha256.Sum256(d[:])
}
