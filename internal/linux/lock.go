package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Lock is the lock of a file or directory (flock(2)), exclusive unless it was made by
// ShareDir. The kernel releases it when the process ends.
type Lock struct {
	*os.File
	shared bool // with another process: see Borrow
}

// ErrLocked means that somebody else holds the lock.
var ErrLocked = errors.New("locked by another process")

const (
	asFile      = os.O_RDWR | os.O_CREATE | unix.O_NOFOLLOW
	asDirectory = unix.O_DIRECTORY | unix.O_NOFOLLOW
)

// LockFile waits for the lock of a file, which is created if it is missing (mode 0600).
// When ctx ends, so does the wait.
func LockFile(ctx context.Context, path string) (*Lock, error) {
	return lock(path, asFile, waiting(ctx, unix.LOCK_EX))
}

// TryLockFile is LockFile without the wait: ErrLocked if somebody holds the lock.
func TryLockFile(path string) (*Lock, error) { return lock(path, asFile, tryLock) }

// LockDir waits for the lock of a directory, which is not created: the error is
// fs.ErrNotExist if it does not exist, or no longer does once the lock is free.
func LockDir(ctx context.Context, path string) (*Lock, error) {
	return lock(path, asDirectory, waiting(ctx, unix.LOCK_EX))
}

// ShareDir is LockDir for one of several that may hold the lock together, while nobody
// holds it alone.
func ShareDir(ctx context.Context, path string) (*Lock, error) {
	return lock(path, asDirectory, waiting(ctx, unix.LOCK_SH))
}

// TryLockDir is LockDir without the wait: ErrLocked if somebody holds the lock.
func TryLockDir(path string) (*Lock, error) { return lock(path, asDirectory, tryLock) }

// Unlock releases the lock at once. Closing alone does not: a process that was just
// forked, such as a guest's first, has a copy of the descriptor, and may itself be
// waiting for a process that waits for this lock.
func (l *Lock) Unlock() {
	if !l.shared {
		_ = unix.Flock(int(l.Fd()), unix.LOCK_UN)
	}
	l.Close()
}

// Leave is for the holder of a lock that another process may have borrowed and not
// given back: Unlock then leaves the lock to that.
func (l *Lock) Leave() { l.shared = true }

// maxNote bounds what a lender tells with its lock.
const maxNote = 64 << 10

// Lend lends the lock to processes of the same user that ask for it at a socket, which it makes
// (Borrow), and tells them the note; until end is called. The lender must do nothing meanwhile that
// the lock is for.
func (l *Lock) Lend(socket string, note []byte) (end func() error, err error) {
	if len(note) > maxNote {
		return nil, fmt.Errorf("lend a lock with a note of %d bytes: %d at most", len(note), maxNote)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a lender that was killed
		return nil, err
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(unix.Bind(s, &unix.SockaddrUnix{Name: socket}), unix.Listen(s, 8)); err != nil {
		unix.Close(s)
		return nil, &fs.PathError{Op: "listen", Path: socket, Err: err}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, _, err := unix.Accept4(s, unix.SOCK_CLOEXEC)
			if err == unix.EINTR {
				continue
			}
			if err != nil { // it was shut down
				return
			}
			if peer, err := unix.GetsockoptUcred(c, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && int(peer.Uid) == os.Geteuid() {
				_ = unix.Sendmsg(c, note, unix.UnixRights(int(l.Fd())), nil, unix.MSG_NOSIGNAL) // one that has gone needs none
			}
			unix.Close(c)
		}
	}()
	return func() error {
		err := unix.Shutdown(s, unix.SHUT_RDWR)
		<-ended
		return errors.Join(err, unix.Close(s), os.Remove(socket))
	}, nil
}

// Borrow shares the lock that another process holds on the file at path and lends at a socket:
// both hold it, until both have unlocked it, or the lender has, unless it called Leave. It is
// ErrLocked if nobody lends that lock. (pidfd_getfd(2) would do without the lender, but not
// where kernel.yama.ptrace_scope is 3.)
func Borrow(path, socket string) (l *Lock, note []byte, err error) {
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(c)
	if err := unix.SetsockoptTimeval(c, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return nil, nil, err
	}
	if err := unix.Connect(c, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, nil, ErrLocked
	}
	note, rights := make([]byte, maxNote), make([]byte, unix.CmsgSpace(4))
	n, nrights, _, _, err := unix.Recvmsg(c, note, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, nil, ErrLocked
	}
	messages, err := unix.ParseSocketControlMessage(rights[:nrights])
	if err != nil || len(messages) != 1 {
		return nil, nil, ErrLocked
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, nil, ErrLocked
	}
	l = &Lock{os.NewFile(uintptr(fds[0]), path), true}
	theirs, err := l.Stat()
	now, nerr := os.Lstat(path)
	// Whoever holds it by this descriptor gets it again at once; nobody else does.
	if err != nil || nerr != nil || !os.SameFile(theirs, now) || flock(l.File, unix.LOCK_EX|unix.LOCK_NB) != nil {
		l.Close()
		return nil, nil, ErrLocked
	}
	return l, note[:n], nil
}

// lock locks the file that the path leads to once the lock is held: the previous holder
// may have removed the file, and another may have created a new one. acquire locks an
// open file, or closes it.
func lock(path string, flags int, acquire func(*os.File) error) (*Lock, error) {
	for {
		f, err := Open(path, flags, 0o600)
		if err != nil {
			return nil, err
		}
		if err := acquire(f); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		l := &Lock{File: f}
		held, err := f.Stat()
		if err != nil {
			l.Unlock()
			return nil, err
		}
		if now, err := os.Lstat(path); err == nil && os.SameFile(held, now) {
			return l, nil
		}
		l.Unlock()
	}
}

// tryLock locks f if nobody else has, and closes it otherwise.
func tryLock(f *os.File) error {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		f.Close()
	}
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

// waiting returns a function that locks a file as soon as it is free, and closes it if
// ctx ends first.
func waiting(ctx context.Context, how int) func(*os.File) error {
	return func(f *os.File) error {
		err := flock(f, how|unix.LOCK_NB)
		if err == unix.EWOULDBLOCK {
			got := make(chan error, 1)
			go func() { got <- flock(f, how) }()
			select {
			case err = <-got:
			case <-ctx.Done():
				// A wait in flock(2) cannot be interrupted: we abandon it, and once it
				// gets the lock in its turn it releases it at once.
				go func() {
					if <-got == nil {
						(&Lock{File: f}).Unlock()
					} else {
						f.Close()
					}
				}()
				return ctx.Err()
			}
		}
		if err != nil {
			f.Close()
		}
		return err
	}
}

// flock calls flock(2), again if a signal interrupts it.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// LockHolder returns the process that holds the lock of a file, or 0 if none does that
// this process can see (proc(5), /proc/locks).
func LockHolder(path string) (pid int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return 0, nil
		}
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	b, err := ReadFile("/proc/locks")
	if err != nil {
		return 0, err
	}
	// 1: FLOCK  ADVISORY  WRITE 4711 00:1b:123 0 EOF
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[3] == "WRITE" && f[5] == file {
			return strconv.Atoi(f[4])
		}
	}
	return 0, nil
}
