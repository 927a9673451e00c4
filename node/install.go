package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
	"github.com/vsfleet/vsfleet/node/initscript"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/systemd"
)

// InstallDir is the directory in an administrator's PATH that vsnode goes to.
const InstallDir = "/usr/local/sbin"

// Links are the names of Linux-VServer's tools that this program answers to.
var Links = []string{
	"vserver", "vserver-stat", "vserver-info", "start-vservers", "stop-vservers", "vps", "vtop", "vpstree", "vkill", "vuname", "vlimit",
	"vapt-get", "vrpm", "vyum",
}

// Install copies this program to InstallDir.
func (h *Host) Install(ctx context.Context) (api.Installed, error) { return Install(ctx, InstallDir) }

// Install copies this program into dir and links the names of Linux-VServer's tools
// to it. Only root may read or run it: see procctx.Start. From then on guests with
// a mark start when the host boots.
func Install(ctx context.Context, dir string) (api.Installed, error) {
	done := api.Installed{Path: filepath.Join(dir, "vsnode"), Links: Links}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return done, err
	}
	if err := linux.CopySelf(done.Path); err != nil {
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
	return done, startAtBoot(ctx)
}

// startAtBoot has guests with a mark start when the host boots, if it has an init that
// this is known of.
func startAtBoot(ctx context.Context) error {
	if systemd.Runs() {
		return guest.StartAtBoot(ctx, setting.DefaultMark)
	}
	_, err := initscript.Install(ctx, "/")
	return err
}

// mayStartAtBoot prepares a host without systemd for a guest that is to start at boot;
// units of systemd are the guest's own matter.
func (h *Host) mayStartAtBoot(ctx context.Context, g *api.Guest) error {
	if g.Boot.Mark == "" || systemd.Runs() {
		return nil
	}
	h.install.once.Do(func() { _, h.install.err = Install(ctx, InstallDir) })
	if h.install.err != nil {
		return fmt.Errorf("have it start at boot: %w", h.install.err)
	}
	return nil
}

// Uninstall removes what Install has put into dir, and what has guests start at boot.
// It refuses if guests run: what their units need to stop them in order would be gone.
func (h *Host) Uninstall(ctx context.Context, dir string) error {
	running, err := h.Guests.Lives(ctx)
	if err != nil {
		return err
	}
	if len(running) > 0 {
		return fmt.Errorf("guest %s runs: stop all guests first (vserver NAME stop)", running[0].Name)
	}
	if err := errors.Join(h.Guests.NeverAtBoot(ctx), initscript.Remove(ctx, "/"), netctx.Unpin(ctx)); err != nil {
		return err
	}
	// The program itself last: after a kill, or an error, the same command goes on.
	for _, name := range Links {
		link := filepath.Join(dir, name)
		if to, err := os.Readlink(link); err != nil || to != "vsnode" {
			continue // not ours
		}
		if err := os.Remove(link); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, "vsnode")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
