package builder

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// A skeleton is an empty root, in which a command may run: what Linux-VServer's build
// did to have the rest installed by hand.
type skeleton struct{ command []string }

func parseSkeleton(spec api.ImageSpec) (source, error) {
	_, command, err := options(spec.Args, "d") // -d chose how to adapt the tree
	if err == nil && len(command) > 0 && command[0] == "" {
		err = errors.New("the command has no name")
	}
	return skeleton{command}, err
}

// skeletonDirs are the directories that programs and vsnode expect. bin, lib and sbin are
// links in some distributions: what is unpacked there brings its own.
var skeletonDirs = []string{"dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var", "var/lib", "var/log", "var/tmp"}

func (s skeleton) fill(ctx context.Context, req Request) error {
	req.Progress.Report("making directories", 0, 0)
	root, err := openInstallation(req.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	// The tree of equal arguments is the same whenever it is made.
	epoch := []unix.Timespec{{}, {}}
	if err := unix.UtimesNanoAt(int(root.dir.Fd()), ".", epoch, 0); err != nil {
		return err
	}
	for _, dir := range skeletonDirs {
		if err := root.makeDir(dir); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]os.FileMode{"root": 0o700, "tmp": 0o777 | os.ModeSticky, "var/tmp": 0o777 | os.ModeSticky} {
		if err := root.Chmod(dir, mode); err != nil {
			return err
		}
	}
	if err := root.write("etc/hosts", hosts, 0o644); err != nil || len(s.command) == 0 {
		return err
	}
	req.Progress.Report("running "+s.command[0], 0, 0)
	return tool(ctx, req, program{path: s.command[0], args: s.command[1:], dir: req.Dir})
}
