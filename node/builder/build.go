package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/probe"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

// Progress receives events (without a step) about what is being done; it may be nil.
type Progress func(api.Event)

// Report emits what is being done and how much of it is done; total is 0 while it is
// unknown.
func (p Progress) Report(message string, done, total int64) {
	if p != nil {
		p(api.Event{Kind: api.Progress, Message: message, Done: done, Total: total})
	}
}

// Warn emits a warning.
func (p Progress) Warn(text string) {
	if p != nil {
		p(api.Event{Kind: api.Warning, Message: text})
	}
}

// Request describes one root filesystem to make.
type Request struct {
	Spec     api.ImageSpec
	Dir      string    // an empty directory that only root can reach
	Log      io.Writer // receives all output of the host's tools; may be nil
	Progress Progress
}

// MissingError means that this host lacks something that another host may have: a
// tool, an archive.
type MissingError struct{ what string }

func (e *MissingError) Error() string { return e.what }

func missingf(format string, args ...any) error { return &MissingError{fmt.Sprintf(format, args...)} }

// Methods returns the methods that this host has the tools for.
func Methods() []string {
	list := []string{"template"}
	if probe.Want(probe.Debootstrap) == nil {
		list = append(list, "debootstrap")
	}
	return list
}

// Run makes the root filesystem. After an error, the directory holds an incomplete
// one, which the caller removes.
func Run(ctx context.Context, req Request) error {
	if req.Log == nil {
		req.Log = io.Discard
	}
	err := Check(req.Spec)
	switch {
	case err != nil:
		return err
	case req.Spec.Method == "template":
		err = template(ctx, req)
	default:
		err = debootstrap(ctx, req)
	}
	if err == nil {
		err = fit(req)
	}
	if err == nil {
		err = putFiles(req)
	}
	if err == nil {
		err = tree.Normalize(ctx, req.Dir)
	}
	if err != nil {
		return fmt.Errorf("build by %s: %w", req.Spec.Method, err)
	}
	return nil
}

// Check refuses methods that are not there, and arguments that a method does not take.
func Check(spec api.ImageSpec) (err error) {
	switch spec.Method {
	case "debootstrap":
		_, err = parseBootstrap(spec.Args, spec.Packages)
	case "template":
		_, err = archives(spec)
	default:
		err = unknownMethod(spec.Method)
	}
	if err != nil {
		return fmt.Errorf("build by %s: %w", spec.Method, err)
	}
	return nil
}

// putFiles writes the files of the spec into what the method made.
func putFiles(req Request) error {
	if len(req.Spec.Files) == 0 {
		return nil
	}
	fd, err := unix.Open(req.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", req.Dir, err)
	}
	dir := os.NewFile(uintptr(fd), req.Dir)
	defer dir.Close()
	for _, f := range req.Spec.Files {
		if api.FileDigest(f.Content) != f.Digest {
			return fmt.Errorf("file %s: its content is not what its digest says", f.Path)
		}
		if err := (rootfs.Dir{Root: dir}).Write(f); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	return nil
}

// unknownMethod returns the error for an unknown method, with what to use instead.
func unknownMethod(method string) error {
	const archive = "make a tar archive of the tree (tar --numeric-owner --xattrs -C TREE -cf FILE .) and use template"
	why, known := map[string]string{
		"legacy":   "copies the host's own root, with all that it holds: " + archive,
		"copy":     "has no script in util-vserver either: " + archive,
		"skeleton": "makes empty directories: " + archive,
		"rsync":    "copies a tree: " + archive,
		"clone":    "copies another guest: guests of one image share it; to copy a changed one, " + archive,
		"yum":      "needs a yum that util-vserver patched: run dnf --installroot=TREE, and " + archive,
		"apt-rpm":  "is for distributions that are no more: " + archive,
		"urpmi":    "is for distributions that are no more: run urpmi --root TREE, and " + archive,
		"poldek":   "is PLD's own: run poldek --root TREE, and " + archive,
		"rpm":      "installs lists of packages: run rpm --root TREE, and " + archive,
		"fai":      "needs a patched FAI: install elsewhere, and " + archive,
		"lvm":      "is LXC's: mount the volume, and " + archive,
		"ssh":      "was never in util-vserver: run tar there over ssh, and use template",
	}[method]
	if !known {
		return errors.New("no such method; there are debootstrap and template")
	}
	return fmt.Errorf("the method %s; there are debootstrap and template", why)
}

// options parses a method's arguments as getopt does: each of the letters takes a
// value, and "--" ends the options; rest is what follows.
func options(args []string, letters string) (values map[byte][]string, rest []string, err error) {
	values = make(map[byte][]string)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return values, args[i+1:], nil
		case len(arg) < 2 || arg[0] != '-' || strings.IndexByte(letters, arg[1]) < 0:
			return nil, nil, fmt.Errorf("argument %q: want one of -%s", arg, strings.Join(strings.Split(letters, ""), ", -"))
		case len(arg) > 2:
			values[arg[1]] = append(values[arg[1]], arg[2:])
		case i+1 == len(args):
			return nil, nil, fmt.Errorf("argument %s needs a value", arg)
		default:
			i++
			values[arg[1]] = append(values[arg[1]], args[i])
		}
	}
	return values, nil, nil
}
