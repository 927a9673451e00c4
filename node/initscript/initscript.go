// Package initscript has guests start at boot on hosts without systemd: a script for
// OpenRC or for sysvinit, which calls start-vservers.
//
// Killed: the script is there or not, and enabled or not; the next call goes on.
//
// It never starts or stops a guest by itself.
package initscript

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
)

//go:embed vservers.sysv
var sysv string

//go:embed vservers.openrc
var openrc string

const name = "vservers"

// patience is how long the tools that enable a script may take.
const patience = time.Minute

// A kind is an init, with the programs by which its scripts are enabled and disabled; the
// first that is there is used.
type kind struct {
	text            string
	enable, disable [][]string
}

var (
	withOpenRC = kind{openrc, [][]string{{"rc-update", "add", name, "default"}}, [][]string{{"rc-update", "delete", name, "default"}}}
	withSysv   = kind{sysv,
		[][]string{{"update-rc.d", name, "defaults"}, {"chkconfig", "--add", name}},
		[][]string{{"update-rc.d", "-f", name, "remove"}, {"chkconfig", "--del", name}}}
)

// on returns the init of the host below root, if it is one of those that scripts are
// for.
func on(root string) (kind, bool) {
	there := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	switch {
	case !there("etc/init.d"):
		return kind{}, false
	case there("sbin/openrc-run"), there("usr/sbin/openrc-run"), there("usr/bin/openrc-run"):
		return withOpenRC, true
	}
	return withSysv, true
}

func script(root string) string { return filepath.Join(root, "etc/init.d", name) }

// Install writes the script of the host's init and enables it. It reports false if the
// host has no init that it knows.
func Install(ctx context.Context, root string) (bool, error) {
	k, known := on(root)
	if !known {
		return false, nil
	}
	if have, err := os.ReadFile(script(root)); err == nil && !strings.Contains(string(have), "Written by vsnode") {
		return false, fmt.Errorf("%s is not vsnode's: move it away", script(root))
	}
	if err := linux.ReplaceFile(script(root), []byte(k.text), 0o755); err != nil {
		return false, err
	}
	return true, call(ctx, k.enable)
}

// Remove disables the script and removes it.
func Remove(ctx context.Context, root string) error {
	k, known := on(root)
	have, err := os.ReadFile(script(root))
	if errors.Is(err, fs.ErrNotExist) || !known || !strings.Contains(string(have), "Written by vsnode") {
		return nil
	}
	// First: after a kill between the two, the script is there to be removed again.
	if err := call(ctx, k.disable); err != nil {
		return err
	}
	return os.Remove(script(root))
}

// call runs the first of some programs that the host has.
func call(ctx context.Context, programs [][]string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, argv := range programs {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	return fmt.Errorf("/etc/init.d/%s is written, but nothing is there to enable it: link it into the runlevels", name)
}
