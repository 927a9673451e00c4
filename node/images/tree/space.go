package tree

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A freeSpace watches the free space of a filesystem, so that no archive, not even a
// decompression bomb, fills the disk of running guests.
type freeSpace struct {
	root *os.File
	dir  string
	left int64 // bytes that may be taken before asking again
}

// reserve returns the number of bytes that unpacking leaves free: a twentieth of the
// filesystem, but at most a quarter GiB.
func reserve(st *unix.Statfs_t) int64 {
	return min(int64(st.Blocks)*int64(st.Bsize)/20, 256<<20)
}

// overhead is the space that a file takes besides its content: its name, its inode
// and the rest of its last block.
const overhead = 4096

// Needs returns the space that a tree of that many bytes and files may take.
func Needs(bytes, files int64) int64 { return bytes + files*overhead }

// Free returns the space that trees may take in the filesystem of dir.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return max(0, int64(st.Bavail)*int64(st.Bsize)-reserve(&st)), nil
}

// take accounts for the space of a file. A sparse file counts in full: whoever copies
// the tree may fill the holes.
func (r *freeSpace) take(size int64) error {
	if size > 1<<62 {
		return fmt.Errorf("a file of %d bytes: %w", size, unix.EFBIG)
	}
	need := size + overhead
	if r.left >= need {
		r.left -= need
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.root.Fd()), &st); err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", r.dir, err)
	}
	free := int64(st.Bavail)*int64(st.Bsize) - reserve(&st)
	if free < need {
		return fmt.Errorf("%s needs %d MiB more and has %d MiB free, %d MiB of which stay so: %w",
			r.dir, need>>20, int64(st.Bavail)*int64(st.Bsize)>>20, reserve(&st)>>20, unix.ENOSPC)
	}
	// Ask again soon: others write too.
	r.left = min(free-need, 64<<20)
	return nil
}

// explain adds the filesystem to an ENOSPC error.
func (r *freeSpace) explain(err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	var st unix.Statfs_t
	if unix.Fstatfs(int(r.root.Fd()), &st) != nil {
		return err
	}
	return fmt.Errorf("%s has %d MiB and %d inodes free: %w", r.dir, int64(st.Bavail)*int64(st.Bsize)>>20, st.Ffree, err)
}
