package guest

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vsfleet/vsfleet/node/api"
)

const (
	noUnify    = "files are shared by their content with the store of images: vserver NAME hashify"
	noPackages = "packages are managed in the guest: vserver NAME exec apt-get …"
	noDevices  = "a guest has /dev/null, zero, full, random, urandom, tty and pseudoterminals, and no other device"
	noDistros  = "a distribution is what the method and its arguments say: vserver NAME build --help, and images in the inventory"
)

// defaultFiles are the files of all guests, below /etc/vservers. docs/configuration.md
// lists them behind knownFiles.
var defaultFiles = sync.OnceValue(func() []knownFile { return append(hookFiles(".defaults/"), filesOfAllGuests...) })

var filesOfAllGuests = []knownFile{
	{".defaults/vdirbase", hasEffect, "link to the directory of guests that have no `vdir`"},
	{".defaults/shell", hasEffect, "for `enter`, of guests without `shell`"},
	{".defaults/apps/init/environment", hasEffect, "of guests without their own"},
	{".defaults/cgroup/mnt", noEffect, "cgroup v2 is found where it is mounted"},
	{".defaults/cgroup/subsys", noEffect, "there is one hierarchy with all controllers"},
	{".defaults/cgroup/per-ss", noEffect, "there is one hierarchy with all controllers"},
	{".defaults/cgroup/inherit", noEffect, "a guest may use the processors that its cgroup inherits"},
	{".defaults/cgroup/name", noEffect, "a guest's cgroup is vservers/NAME"},
	{".defaults/cgroup/base", noEffect, "a guest's cgroup is vservers/NAME"},
	{".defaults/cgroup/*", hasEffect, "as `cgroup/*`, for guests that do not say otherwise"},
	{".defaults/cachebase", hasEffect, "what util-vserver kept there is not needed"},
	{".defaults/nonamespace", noEffect, "every guest has its own mounts"},
	{".defaults/namespace-cleanup", hasEffect, "a guest sees its own mounts alone"},
	{".defaults/nonamespace-cleanup", hasEffect, "there is nothing to clean up"},
	{".defaults/namespace-cleanup-skip", hasEffect, "nothing of the host's mounts is left to skip"},
	{".defaults/run.rev", hasEffect, "util-vserver needed it with kernel 2.4; contexts are found by the guests' directories"},
	{".defaults/keepfds", noEffect, "no descriptor of the host's gets into a guest"},
	{".defaults/fstab", noEffect, "a new guest's mounts are given to it one by one"},
	{".defaults/context.dynamic", hasEffect, "a guest without `context` gets a free one anyway"},
	{".defaults/context.next", noEffect, "a new guest gets the first free context from 28672"},
	{".defaults/init/mtab", noEffect, "/etc/mtab is the guest's own file: make it a link to /proc/self/mounts"},
	{".defaults/apps/init/tty", hasEffect, "of the guests that name none"},
	{".defaults/apps/pkgmgmt/**", noEffect, noPackages},
	{".defaults/apps/debootstrap/**", noEffect, "the mirror is given to build: vserver NAME build -m debootstrap -- -d SUITE -m MIRROR"},
	{".defaults/apps/build/options", noEffect, "options are given to each build"},
	{".defaults/apps/vdevmap/**", noEffect, noDevices},
	{".defaults/apps/vshelper/**", noEffect, noHelper},
	{".defaults/apps/vshelper-methods/**", noEffect, noHelper},
	{".defaults/apps/vshelper-delegate/**", noEffect, noHelper},
	{".defaults/apps/vprocunhide/files", noEffect, "a guest's /proc is its own; what it shows is not chosen file by file"},
	{".defaults/apps/vunify/exclude", hasEffect, "the same for guests without such a file"},
	{".defaults/apps/vunify/**", noEffect, noUnify},
	{".defaults/apps/vlogin/disable", noEffect, "enter always gives a terminal of the guest's own"},
	{".defaults/apps/h2ext/**", noEffect, "tools recognise a filesystem without"},
	{".defaults/interfaces/vlandev", noEffect, "VLAN devices are not made: the host's network configuration has to"},
	{".defaults/netns/**", noEffect, "for a network of the guest's own use netns/nat"},
	{".defaults/files/**", noEffect, "a new guest gets /etc/hosts, hostname and resolv.conf of the host's settings; other files by `files` in the inventory"},
	{".defaults/styles/**", noEffect, "messages have no colours"},
	{".distributions/**", noEffect, noDistros},
}

// UnreadDefaults returns the files for all guests that have no effect.
func (p Paths) UnreadDefaults() (list []api.Unread, err error) {
	for _, top := range []string{".defaults", ".distributions"} {
		// Links are not followed: vdirbase leads to the guests themselves.
		err := filepath.WalkDir(filepath.Join(p.ConfigDir, top), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			rel, rerr := filepath.Rel(p.ConfigDir, path)
			if err = errors.Join(err, rerr); err != nil || d.IsDir() && rel != ".distributions" {
				return err
			}
			if rel == ".distributions" {
				list = append(list, api.Unread{File: rel, Why: noDistros})
				return fs.SkipDir
			}
			i := slices.IndexFunc(defaultFiles(), func(m knownFile) bool { return m.matches(rel) })
			switch {
			case isBackup(d.Name()):
			case i < 0:
				list = append(list, api.Unread{File: rel, Why: noSuchFile})
			case defaultFiles()[i].effect != hasEffect:
				list = append(list, api.Unread{File: rel, Why: defaultFiles()[i].why})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}
