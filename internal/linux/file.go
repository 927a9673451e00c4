package linux

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open is like os.OpenFile for files that nobody waits for: regular files, directories
// and those of the kernel. It leaves out the poller, to which package os gives each file
// and which takes six system calls more and, for files of procfs and cgroups, wakes a
// thread.
func Open(path string, flags int, perm fs.FileMode) (*os.File, error) {
	fd, err := open(path, flags, perm)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func open(path string, flags int, perm fs.FileMode) (fd int, err error) {
	err = unix.EINTR
	for err == unix.EINTR {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, uint32(perm.Perm()))
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// ReadFile is os.ReadFile for files as Open takes them.
func ReadFile(path string) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 512)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return b, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// WriteFile is os.WriteFile for files as Open takes them.
func WriteFile(path string, content []byte, perm fs.FileMode) error {
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, perm)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Write(fd, content)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return &fs.PathError{Op: "write", Path: path, Err: err}
		case n == len(content):
			return nil
		case n == 0:
			return &fs.PathError{Op: "write", Path: path, Err: io.ErrShortWrite}
		}
		content = content[n:]
	}
}
