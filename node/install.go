package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// InstallDir is the directory in an administrator's PATH that vsnode goes to.
const InstallDir = "/usr/local/sbin"

// Links are the names of Linux-VServer's tools that this program answers to.
var Links = []string{
	"vserver", "vserver-stat", "vserver-info", "start-vservers", "stop-vservers", "vps", "vtop", "vpstree", "vkill", "vuname", "vlimit",
	"vapt-get", "vrpm", "vyum",
}

// Install copies this program to InstallDir.
func (h *Host) Install(context.Context) (api.Installed, error) { return Install(InstallDir) }

// Install copies this program into dir and links the names of Linux-VServer's tools
// to it. Only root may read or run it: see procctx.Start.
func Install(dir string) (api.Installed, error) {
	done := api.Installed{Path: filepath.Join(dir, "vsnode"), Links: Links}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return done, err
	}
	if err := copySelf(done.Path); err != nil {
		return done, err
	}
	for _, name := range done.Links {
		link := filepath.Join(dir, name)
		if old, err := os.Lstat(link); err == nil && old.Mode()&os.ModeSymlink == 0 {
			return done, fmt.Errorf("%s is there and no link: it may be util-vserver's; move it away", link)
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return done, err
		}
		if err := os.Symlink("vsnode", link); err != nil {
			return done, err
		}
	}
	return done, nil
}

// copySelf replaces target by this program.
func copySelf(target string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	return linux.ReplaceFileSync(target, 0o700, func(f *os.File) error {
		_, err := io.Copy(f, self)
		return err
	})
}
