package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/images/composefs"
)

func mountAPI(*System) Answer {
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return Tried(fmt.Errorf("fsopen: %w", err))
	}
	unix.Close(fd)
	return Yes("")
}

// DataDir returns where guests' data lies or will lie: the directory itself or
// the nearest one above it that exists, which is on the same filesystem.
func (s *System) DataDir() string {
	dir := s.Data
	for dir != "/" {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func idmappedMounts(s *System) Answer {
	dir := s.DataDir()
	ns, err := userNamespace()
	if err != nil {
		return Unknown("%v", err)
	}
	defer ns.Close()
	m, err := idmapped(dir, ns)
	if err != nil {
		return Tried(err)
	}
	unix.Close(m)
	return Yes("%s", dir)
}

// idmapped returns a detached mount of dir, idmapped if there is a namespace to
// map by. It is gone once it is closed.
func idmapped(dir string, ns *os.File) (fd int, err error) {
	fd, err = unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open_tree %s: %w", dir, err)
	}
	if ns == nil {
		return fd, nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("idmap %s: %w", dir, err)
	}
	return fd, nil
}

func overlay(s *System) Answer { return s.overlayOn(nil) }

func idmappedOverlay(s *System) Answer {
	ns, err := userNamespace()
	if err != nil {
		return Unknown("%v", err)
	}
	defer ns.Close()
	return s.overlayOn(ns)
}

// overlayOn makes an overlay of three directories where guests' data lies, as
// a guest's root is made: not each filesystem can be an upper layer (overlayfs
// itself cannot, nor can NFS).
func (s *System) overlayOn(ns *os.File) Answer {
	dir := s.DataDir()
	tmp, err := scratch(dir)
	if err != nil {
		return Unknown("%v", err)
	}
	defer os.RemoveAll(tmp) // what it cannot remove, RemoveLeftovers will
	for _, sub := range []string{"layers", "layers/lower", "layers/upper", "layers/work", "at"} {
		if err := os.Mkdir(tmp+"/"+sub, 0o700); err != nil {
			return Unknown("%v", err)
		}
	}
	_, err = linux.OnOwnThread(func() (none struct{}, _ error) {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return none, fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return none, fmt.Errorf("make mounts private: %w", err)
		}
		layers, err := idmapped(tmp+"/layers", ns)
		if err != nil {
			return none, err
		}
		defer unix.Close(layers)
		at := tmp + "/at" // overlayfs takes attached layers only
		if err := unix.MoveMount(layers, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return none, fmt.Errorf("move_mount: %w", err)
		}
		return none, overlayMount(at+"/lower", at+"/upper", at+"/work")
	})
	if err != nil {
		return Tried(fmt.Errorf("on %s: %w", dir, err))
	}
	return Yes("on %s", dir)
}

func overlayMount(lower, upper, work string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fd)
	for _, option := range [][2]string{{"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}} {
		if err := unix.FsconfigSetString(fd, option[0], option[1]); err != nil {
			return fmt.Errorf("overlay's %s: %w", option[0], err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount overlay: %w", err)
	}
	return unix.Close(m)
}

// descriptions mounts the description of an empty tree, idmapped as guests need it.
func descriptions(s *System) Answer {
	ns, err := userNamespace()
	if err != nil {
		return Unknown("%v", err)
	}
	defer ns.Close()
	tmp, err := scratch(s.DataDir())
	if err != nil {
		return Unknown("%v", err)
	}
	defer os.RemoveAll(tmp)
	f, err := os.Create(tmp + "/description")
	if err != nil {
		return Unknown("%v", err)
	}
	defer f.Close()
	empty, err := composefs.New(composefs.Node{Mode: unix.S_IFDIR | 0o755})
	if err == nil {
		_, err = empty.Write(f)
	}
	if err != nil {
		return Unknown("%v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) //nolint:forbidigo // abilities are asked without one
	defer cancel()
	mount, err := composefs.Mount(ctx, f)
	if err != nil {
		return Tried(err)
	}
	defer mount.Close()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(int(mount.Fd()), "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return Tried(fmt.Errorf("idmap it: %w", err))
	}
	return Yes("")
}
