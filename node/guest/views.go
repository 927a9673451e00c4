package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// lxcfsDir is where lxcfs's unit mounts it. A guest gets single files of it: the
// directory also has all cgroups of the host.
const lxcfsDir = "/var/lib/lxcfs"

// viewFiles are bound over the guest's own. /proc/uptime is not among them: ps subtracts
// the start times of processes from it, which lxcfs does not change.
var viewFiles = []string{
	"/proc/cpuinfo", "/proc/meminfo", "/proc/swaps", "/proc/loadavg", "/proc/diskstats",
	"/sys/devices/system/cpu/online",
}

// viewsOf returns the mounts that show a guest its limits. A host whose lxcfs does not
// run, or does not answer, refuses the guest: it would see none or fail.
func viewsOf(c Config, ownUptime bool) ([]procctx.Mount, error) {
	if c.Views != setting.LXCFS {
		return nil, nil
	}
	files := viewFiles
	if !ownUptime {
		// Its btime is the host's, to which ps adds the start times of processes.
		files = append([]string{"/proc/stat"}, files...)
	}
	type answer struct {
		mounts []procctx.Mount
		err    error
	}
	ch := make(chan answer, 1)
	go func() {
		mounts, err := lxcfsMounts(files)
		ch <- answer{mounts, err}
	}()
	select {
	case a := <-ch:
		return a.mounts, a.err
	case <-time.After(5 * time.Second):
		return nil, fmt.Errorf("views: lxcfs on %s has not answered for 5 s: systemctl restart lxcfs, or set views: host", lxcfsDir)
	}
}

// lxcfsMounts asks lxcfs, and waits for as long as that takes.
func lxcfsMounts(files []string) (mounts []procctx.Mount, err error) {
	var st unix.Statfs_t
	err = unix.Statfs(lxcfsDir, &st)
	if err == nil && st.Type != unix.FUSE_SUPER_MAGIC {
		err = errors.New("it is not mounted")
	}
	if err != nil {
		return nil, fmt.Errorf("views: no lxcfs on %s: %w: apt-get install lxcfs; systemctl restart lxcfs; or set views: host", lxcfsDir, err)
	}
	for _, file := range files {
		_, err := os.Lstat(lxcfsDir + file)
		if err == nil {
			_, err = os.Lstat(file) // the kernel may have no swap
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("views: %w", err)
		}
		mounts = append(mounts, procctx.Mount{
			Line: "views", Source: lxcfsDir + file, Place: file, HostIDs: true,
			Attrs: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		})
	}
	return mounts, nil
}
