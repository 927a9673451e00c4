package guest

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/procctx"
)

// filesystems are those that may hold a guest's root: overlayfs, and those that support
// idmapped mounts.
var filesystems = []int64{
	unix.OVERLAYFS_SUPER_MAGIC, unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.F2FS_SUPER_MAGIC,
	0x2fc12fc1, // ZFS
	0xca451a4e, // bcachefs
}

// maxUserFile limits how much of a guest's passwd and group is read.
const maxUserFile = 4 << 20

// User finds a user of a running guest by ID or by its name in /etc/passwd.
func (h *Host) User(name, user string) (procctx.User, error) {
	v, err := h.look(name)
	if err != nil {
		return procctx.User{}, fmt.Errorf("guest %s: %w", name, err)
	}
	a, err := v.account(user)
	if err != nil {
		return a.User, fmt.Errorf("guest %s: %w", name, err)
	}
	return a.User, nil
}

// account is a user with what its entry in /etc/passwd has.
type account struct {
	procctx.User
	login, home string // empty: there is no entry
}

// environment returns what a login sets for the account.
func (a account) environment() (env []string) {
	if a.login != "" {
		env = append(env, "USER="+a.login, "LOGNAME="+a.login)
	}
	return append(env, "HOME="+cmp.Or(a.home, "/"))
}

// account finds a user of the guest.
func (v view) account(user string) (account, error) {
	uid, numeric := number(user)
	return findAccount(func(path string) (io.ReadCloser, error) { return openInside(v.initPID, path) }, user, uid, numeric)
}

// number is strict: "+1", "0x1" or a word are not numbers (CVE-2026-30892).
func number(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil
}

func findAccount(open func(string) (io.ReadCloser, error), user string, uid int, numeric bool) (account, error) {
	u := account{User: procctx.User{UID: uid, GID: uid}}
	found := false
	err := eachLine(open, "etc/passwd", func(f []string) {
		if found || len(f) < 4 || numeric && f[2] != user || !numeric && f[0] != user {
			return
		}
		id, ok1 := number(f[2])
		gid, ok2 := number(f[3])
		if ok1 && ok2 {
			u.UID, u.GID, u.login, found = id, gid, f[0], true
			if len(f) > 5 && strings.HasPrefix(f[5], "/") {
				u.home = f[5]
			}
		}
	})
	if numeric && !found {
		return u, nil // an ID needs no entry
	}
	if err != nil {
		return u, err
	}
	if !found {
		return u, fmt.Errorf("no user %q in its /etc/passwd", user)
	}
	err = eachLine(open, "etc/group", func(f []string) {
		if len(f) < 4 {
			return
		}
		for _, member := range strings.Split(f[3], ",") {
			if gid, ok := number(f[2]); ok && member == u.login {
				u.Groups = append(u.Groups, uint32(gid))
			}
		}
	})
	return u, err
}

func eachLine(open func(string) (io.ReadCloser, error), path string, f func(fields []string)) error {
	r, err := open(path)
	if err != nil {
		return fmt.Errorf("read /%s: %w", path, err)
	}
	defer r.Close()
	sc := bufio.NewScanner(io.LimitReader(r, maxUserFile))
	for sc.Scan() {
		f(strings.Split(sc.Text(), ":"))
	}
	return sc.Err()
}

// openInside opens a regular file of a running guest. The guest may have put anything
// in its place: links are resolved inside its root, mounts are not crossed, and only a
// file on a disk or in memory is opened for reading. /proc/kmsg is a regular file, too,
// and is the host's kernel log.
func openInside(initPID int, path string) (*os.File, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", initPID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if errors.Is(err, unix.EXDEV) {
		return nil, errors.New("it is not on the guest's own filesystem (give the user by number)")
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("it is no regular file")
	}
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(fd, &fsys); err != nil {
		return nil, err
	}
	if !slices.Contains(filesystems, int64(fsys.Type)) {
		return nil, fmt.Errorf("it is on a filesystem of type %#x, which no guest's root is on", fsys.Type)
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
}
