package procctx

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/images/composefs"
)

// Root describes a guest's root filesystem: an image's tree, shared by many guests
// and only read, and a directory of the guest's own that it writes to. All are
// trusted paths of the host, never paths inside a guest. Ids on disk are those that
// the guest sees: nothing is chowned.
type Root struct {
	// Image is an image's tree: a plain directory, or a file of the name DescriptionFile
	// (package composefs) beside which ObjectsLink leads to the directory of objects.
	// Empty: Upper is the whole root.
	Image string
	Upper string
	Work  string // overlayfs's work directory, beside Upper
}

// Names in the directory of an image that has a description.
const (
	DescriptionFile = "description.erofs"
	ObjectsLink     = "objects"
	InitLink        = "init" // leads to where /sbin/init of the tree leads; missing if that is not a link
)

// Described returns the directory of an image that has a description.
func (r Root) Described() (dir string, ok bool) {
	dir, file := filepath.Split(r.Image)
	return dir, file == DescriptionFile
}

// scratch is the directory where layers are attached while overlayfs makes its
// private clones of them. The mounts are in the mount namespace of one thread and
// disappear with it; the directories stay.
const scratch = "/run/vservers/.layers"

// mount returns the detached root mount of a guest whose ids are those of userns:
// an overlay of idmapped layers (kernel 5.19), nodev, so that device nodes from an
// image do not work.
//
// The overlay is mounted from the initial user namespace: its xattrs are then
// trusted.*, which the guest cannot reach. It acts with the credentials of its
// mounter (ovl_override_creds): see actAsMounter.
func (r Root) mount(ctx context.Context, userns *os.File, xid int) (*os.File, error) {
	if r.Image == "" {
		return idmapped(r.Upper, userns, unix.MOUNT_ATTR_NODEV)
	}
	return r.overlay(ctx, userns, xid)
}

// overlay mounts a root from its layers. It needs a thread in a workshop
// (enterWorkshop). If userns is nil, ids are those on disk.
func (r Root) overlay(ctx context.Context, userns *os.File, xid int) (*os.File, error) {
	// Upper and work must be on one mount: the guest's directory holds both.
	dir, upper, work, err := siblings(r.Upper, r.Work)
	if err != nil {
		return nil, err
	}
	own := layer{name: "own", path: dir}
	lower, objects := layer{name: "lower", path: r.Image}, layer{}
	layers := []layer{own, lower}
	if image, ok := r.Described(); ok {
		objects = layer{name: "objects", path: image + ObjectsLink}
		layers = []layer{own, {name: "lower", description: r.Image}, objects}
	}
	for _, l := range layers {
		if err := l.attach(ctx, userns); err != nil {
			return nil, err
		}
	}
	if userns != nil {
		if err := actAsMounter(xid); err != nil {
			return nil, err
		}
	}
	// redirect_dir: without it, rename(2) of a directory of the image fails with
	// EXDEV, which many programs do not handle. The origin of a directory is kept in a
	// trusted.* xattr, which only the host's root can write and no image contains: a
	// guest cannot forge one (kernel's overlayfs.rst, "Redirect"). metacopy: a file of
	// which a guest changes the owner, mode or times keeps its data in the image; on the
	// upper layer alone it reads as zeros. A description has such files only.
	options := []string{"source", "overlay", "upperdir", own.at() + "/" + upper, "workdir", own.at() + "/" + work, "redirect_dir", "on", "metacopy", "on"}
	mount := func(more ...string) (*os.File, error) {
		return writable(own.at()+"/"+work, func() (*os.File, error) {
			return linux.NewMount("overlay", unix.MOUNT_ATTR_NODEV, append(options, more...)...)
		})
	}
	if objects.name == "" {
		return mount("lowerdir", lower.at())
	}
	// A layer that is asked for data only, when a file is opened (kernel 6.8). Before, it is
	// an ordinary layer, asked at each lookup and hidden by the description's whiteouts.
	if hasDataLayers() {
		return mount("lowerdir+", lower.at(), "datadir+", objects.at())
	}
	return mount("lowerdir", lower.at()+":"+objects.at())
}

// writable returns an overlay that mount makes. overlayfs removes what is in its work
// directory, makes a directory there, and mounts read-only where it cannot. On a full disk
// there may be room for it once the removal is on the disk, so that is waited for.
func writable(work string, mount func() (*os.File, error)) (*os.File, error) {
	m, err := mount()
	if err != nil || !readOnly(m) {
		return m, err
	}
	m.Close()
	_ = tryWork(work) // if it fails, the next one is read-only, too
	return mount()
}

// readOnly reports whether a filesystem, whatever its mount, is read-only.
func readOnly(m *os.File) bool {
	var fs unix.Statfs_t
	err := unix.Fstatfs(int(m.Fd()), &fs)
	return err == nil && fs.Flags&unix.ST_RDONLY != 0
}

// tryWork makes and removes a directory as overlayfs does. What was removed before is
// written out, and what is removed here.
func tryWork(work string) error {
	dir, err := os.Open(work)
	if err != nil {
		return err
	}
	defer dir.Close()
	fd := int(dir.Fd())
	if err := unix.Syncfs(fd); err != nil {
		return err
	}
	if err := unix.Mkdirat(fd, "work", 0); err != nil && err != unix.EEXIST {
		return err
	}
	if err := unix.Unlinkat(fd, "work", unix.AT_REMOVEDIR); err != nil {
		return err
	}
	return unix.Syncfs(fd)
}

// hasDataLayers goes by the kernel's version: an overlayfs that does not know the option
// writes that into the kernel's log at each try.
var hasDataLayers = sync.OnceValue(func() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 8)
})

// A layer is a directory, or the description of one, that is attached while overlayfs
// makes a clone of it.
type layer struct{ name, path, description string }

func (l layer) at() string { return scratch + "/" + l.name }

// attach attaches the layer, idmapped if userns is not nil.
func (l layer) attach(ctx context.Context, userns *os.File) error {
	if err := unix.Mkdir(l.at(), 0o700); err != nil {
		return fmt.Errorf("mkdir %s: %w", l.at(), err)
	}
	m, err := l.mount(ctx, userns)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, l.at(), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach layer %s%s: %w", l.path, l.description, err)
	}
	return nil
}

// mount returns a detached mount of the layer.
func (l layer) mount(ctx context.Context, userns *os.File) (*os.File, error) {
	if l.description == "" {
		return clone(l.path, userns)
	}
	file, err := os.Open(l.description)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	m, err := composefs.Mount(ctx, file)
	if err != nil || userns == nil {
		return m, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
	if err := unix.MountSetattr(int(m.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		m.Close()
		return nil, fmt.Errorf("idmap %s: %w", l.description, err)
	}
	return m, nil
}

// clone returns a clone of a layer's mount, idmapped if userns is not nil.
func clone(path string, userns *os.File) (*os.File, error) {
	if userns != nil {
		return idmapped(path, userns, unix.MOUNT_ATTR_NODEV)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// siblings splits two paths in the same directory.
func siblings(a, b string) (dir, aName, bName string, err error) {
	i, j := strings.LastIndexByte(a, '/'), strings.LastIndexByte(b, '/')
	if i < 0 || j < 0 || a[:i] != b[:j] {
		return "", "", "", fmt.Errorf("%s and %s are not in one directory", a, b)
	}
	return a[:i], a[i+1:], b[j+1:], nil
}

// idmapped returns a detached clone of the mount at path whose ids are shifted
// into userns (mount_setattr(2), kernel 5.12). It is not recursive: the guest does
// not get what the host has mounted below.
func idmapped(path string, userns *os.File, attrs uint64) (*os.File, error) {
	return idmappedAt(unix.AT_FDCWD, path, path, userns, attrs, false)
}

// idmappedAt is idmapped for a path below dir; errors call it name. Without userns the
// ids stay as they are.
func idmappedAt(dir int, path, name string, userns *os.File, attrs uint64, recursive bool) (*os.File, error) {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dir, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", name, err)
	}
	attr := unix.MountAttr{Attr_set: attrs, Propagation: unix.MS_PRIVATE}
	if userns != nil {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(userns.Fd())
	}
	if attrs&unix.MOUNT_ATTR__ATIME != 0 {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME // its modes exclude each other
	}
	if err := unix.MountSetattr(fd, "", flags, &attr); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("idmap %s: %w: its filesystem takes no idmapped mounts (ext4, xfs, btrfs and tmpfs do; see vsnode check)", name, err)
		}
		return nil, fmt.Errorf("idmap %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

const sysAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// hostSys is the host's /sys, read-only and without what is mounted below it
// (debugfs, tracefs, securityfs, bpf, cgroups). A guest in the host's network
// namespace cannot mount a sysfs of its own (lxd#1259).
func hostSys() (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/sys", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open tree /sys: %w", err)
	}
	// Private: the clone of a shared mount is its peer, and what the guest
	// mounts on it (its cgroups) would appear on the host's /sys.
	attr := unix.MountAttr{Attr_set: sysAttrs, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make /sys read-only: %w", err)
	}
	return os.NewFile(uintptr(fd), "/sys"), nil
}

// netSys returns a sysfs that shows the network devices of netns.
func netSys(netns *os.File) (*os.File, error) {
	return linux.OnOwnThread(func() (*os.File, error) {
		if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return nil, fmt.Errorf("join network namespace: %w", err)
		}
		return linux.NewMount("sysfs", sysAttrs)
	})
}

// makeDev returns a guest's /dev: a tmpfs with device nodes of the guest's own.
// Device nodes do not work on a tmpfs of a user namespace, and the host's nodes, if
// bind-mounted, would be the same files for all: locks, watches and times set in
// one guest would show in the others. Nodes of the guest's own list are made likewise;
// they belong to its root.
func makeDev(xid int, more []Device) (*os.File, error) {
	const noexec = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	id := strconv.Itoa(BaseID(xid))
	dev, err := linux.NewMount("tmpfs", noexec, "mode", "0755", "size", "1m", "uid", id, "gid", id)
	if err != nil {
		return nil, err
	}
	fd := int(dev.Fd())
	node := func(name string, create func() error) {
		if err == nil {
			if err = create(); err == nil {
				err = unix.Fchownat(fd, name, BaseID(xid), BaseID(xid), unix.AT_SYMLINK_NOFOLLOW)
			}
			if err != nil {
				err = fmt.Errorf("/dev/%s: %w", name, err)
			}
		}
	}
	const everybody = unix.S_IFCHR | 0o666
	for _, d := range append([]Device{{"null", everybody, 1, 3}, {"zero", everybody, 1, 5}, {"full", everybody, 1, 7},
		{"random", everybody, 1, 8}, {"urandom", everybody, 1, 9}, {"tty", everybody, 5, 0}}, more...) {
		for i, c := range d.Name {
			if dir := d.Name[:i]; c == '/' {
				node(dir, func() error {
					return errors.Join(unless(unix.EEXIST, unix.Mkdirat(fd, dir, 0o755)), unix.Fchmodat(fd, dir, 0o755, 0))
				})
			}
		}
		node(d.Name, func() error {
			if err := unix.Mknodat(fd, d.Name, d.Mode, int(unix.Mkdev(d.Major, d.Minor))); err != nil {
				return err
			}
			return unix.Fchmodat(fd, d.Name, d.Mode&0o777, 0) // whatever the umask
		})
	}
	for _, link := range [][2]string{
		{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
	} {
		node(link[0], func() error { return unix.Symlinkat(link[1], fd, link[0]) })
	}
	for _, dir := range []string{"pts", "shm", "mqueue"} {
		node(dir, func() error { return unix.Mkdirat(fd, dir, 0o755) })
	}
	node(bootIDFile, func() error {
		file, err := unix.Openat(fd, bootIDFile, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return err
		}
		defer unix.Close(file)
		_, err = unix.Write(file, []byte(newBootID()+"\n"))
		return err
	})
	if err != nil {
		dev.Close()
		return nil, err
	}
	return dev, nil
}

// unless returns err unless it is that one.
func unless(that unix.Errno, err error) error {
	if errors.Is(err, that) {
		return nil
	}
	return err
}

// bootIDFile is the guest's boot id in its /dev, until it is mounted over the
// kernel's.
const bootIDFile = ".boot_id"

// newBootID returns a random UUID, as the kernel makes one at boot.
func newBootID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
