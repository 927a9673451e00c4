package quota

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Limits of a project; 0: none. Spaces are bytes, which the kernel rounds up to
// kilobytes.
type Limits struct {
	Space, SoftSpace   int64
	Inodes, SoftInodes int64
}

// Usage is what a project uses.
type Usage struct {
	Space, Inodes int64
	Limits
}

// dqblk is struct if_dqblk of linux/quota.h. Limits of space are in blocks of 1 KiB, the
// space used is in bytes.
type dqblk struct {
	hardSpace, softSpace, space    uint64
	hardInodes, softInodes, inodes uint64
	spaceTime, inodeTime           uint64
	valid, _                       uint32
}

const (
	projects = 2 // PRJQUOTA

	getQuota  = 0x800007     // Q_GETQUOTA
	setQuota  = 0x800008     // Q_SETQUOTA
	getStatus = 'X'<<8 + 0x8 // Q_XGETQSTATV

	blockSize    = 1024
	validLimits  = 1 | 4  // QIF_BLIMITS | QIF_ILIMITS
	accountsBit  = 1 << 4 // FS_QUOTA_PDQ_ACCT
	enforcesBit  = 1 << 5 // FS_QUOTA_PDQ_ENFD
	statvVersion = 1
)

func control(dir *os.File, cmd, id int, to unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, dir.Fd(), uintptr(cmd<<8|projects), uintptr(id), uintptr(to), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Get returns what the project of a directory's filesystem uses.
func Get(path string, project int) (Usage, error) {
	dir, err := open(path)
	if err != nil {
		return Usage{}, err
	}
	defer dir.Close()
	var q dqblk
	if err := control(dir, getQuota, project, unsafe.Pointer(&q)); err != nil && !errors.Is(err, unix.ENOENT) { // xfs: none was ever set
		return Usage{}, fmt.Errorf("read the quota of project %d at %s: %w", project, path, err)
	}
	return Usage{
		Space: int64(q.space), Inodes: int64(q.inodes),
		Limits: Limits{int64(q.hardSpace) * blockSize, int64(q.softSpace) * blockSize, int64(q.hardInodes), int64(q.softInodes)},
	}, nil
}

// Set sets the limits of a project.
func Set(path string, project int, l Limits) error {
	dir, err := open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	blocks := func(bytes int64) uint64 { return uint64(bytes+blockSize-1) / blockSize }
	q := dqblk{
		hardSpace: blocks(l.Space), softSpace: blocks(l.SoftSpace),
		hardInodes: uint64(l.Inodes), softInodes: uint64(l.SoftInodes), valid: validLimits,
	}
	if err := control(dir, setQuota, project, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("limit project %d at %s: %w", project, path, err)
	}
	return nil
}

// Able returns nil if the filesystem of a directory counts and bounds projects, and
// otherwise an error with the commands that make it do so.
func Able(path string) error {
	dir, err := open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	var status struct {
		version int8
		_       uint8
		flags   uint16
		_       [160]byte // of the files that hold quotas, and times
	}
	status.version = statvVersion
	err = control(dir, getStatus, 0, unsafe.Pointer(&status))
	if err == nil && status.flags&enforcesBit != 0 {
		return nil
	}
	mount, merr := mountOf(path)
	if merr != nil {
		return merr
	}
	return unable(mount, err == nil && status.flags&accountsBit != 0)
}

// An Unable filesystem has no project quotas, or has them turned off.
type Unable struct {
	Why, Cure string
}

func (u *Unable) Error() string { return u.Why + ": " + u.Cure }

// IsUnable reports whether err means that a filesystem has no project quotas.
func IsUnable(err error) bool { return errors.As(err, new(*Unable)) }

// unable says what is missing, and what an administrator has to do.
func unable(m linux.Mount, counts bool) *Unable {
	const fstab = "add prjquota to its options in /etc/fstab"
	u := &Unable{Why: fmt.Sprintf("%s is %s on %s without project quotas", m.Dir, m.FSType, m.Source)}
	mounted := fmt.Sprintf("stop what uses it, umount %s; %s; mount %s", m.Dir, fstab, m.Dir)
	tune := fmt.Sprintf("tune2fs -O project,quota -Q prjquota %s", m.Source)
	switch {
	case m.FSType == "ext4" && counts:
		u.Cure = fmt.Sprintf("mount -o remount,prjquota %s; %s", m.Dir, fstab)
	case m.FSType == "ext4" && m.Dir == "/":
		u.Cure = fmt.Sprintf("from a rescue system %s, and %s; or give /var/lib/vservers a filesystem of its own", tune, fstab)
	case m.FSType == "ext4":
		u.Cure = fmt.Sprintf("stop what uses it, umount %s; %s; %s; mount %s", m.Dir, tune, fstab, m.Dir)
	case m.FSType == "xfs" && m.Dir == "/":
		u.Cure = "add rootflags=prjquota to the kernel's command line and reboot; or give /var/lib/vservers a filesystem of its own"
	case m.FSType == "xfs":
		u.Cure = mounted
	default:
		u.Why = fmt.Sprintf("%s is %s, which has no project quotas", m.Dir, m.FSType)
		u.Cure = "put /var/lib/vservers on ext4 (mkfs.ext4 -O project,quota -E quotatype=prjquota) or xfs, mounted with prjquota"
	}
	return u
}

// mountOf returns the mount that a path is on.
func mountOf(path string) (found linux.Mount, err error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return found, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	mounts, err := linux.Mounts()
	if err != nil {
		return found, err
	}
	for _, m := range mounts {
		if uint64(m.ID) == st.Mnt_id {
			return m, nil
		}
	}
	return linux.Mount{Dir: path, FSType: "of an unknown kind"}, nil
}

func open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
