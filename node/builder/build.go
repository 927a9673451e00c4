package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/buildmethod"
	"github.com/vsfleet/vsfleet/internal/nearest"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
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
	Input    string // a file that the controller sent: the OCI layout of an image from a registry; empty: none
	// Last fills a directory with the last version of the image, whose packages are then
	// upgraded in place of a build by the method; nil: it is built.
	Last   func(ctx context.Context, dir string) error
	Guests Guests // of this host, for the method clone; nil: there are none
}

// Guests gives the method clone the files of guests.
type Guests interface {
	// Snapshot calls use with the root filesystem of a guest as it is at one moment. dir is
	// an empty directory for files that this needs; they are the caller's to remove.
	// A guest that is not there is a [Missing] one.
	Snapshot(ctx context.Context, guest, dir string, use func(root *os.File) error) error
}

// MissingError means that this host lacks something that another host may have: a
// tool, an archive.
type MissingError struct{ what string }

func (e *MissingError) Error() string { return e.what }

// Missing returns err as a MissingError.
func Missing(err error) error { return &MissingError{err.Error()} }

func missingf(format string, args ...any) error { return &MissingError{fmt.Sprintf(format, args...)} }

// A source is what a method's arguments mean: it fills an empty directory with a root
// filesystem. It does not return before all that it started has ended. What it leaves
// in the directory after an error, or when it is killed, is the caller's to remove.
type source interface {
	fill(ctx context.Context, req Request) error
}

// A method makes a source of a spec. It looks at the arguments alone, not at the host.
type method struct {
	parse func(spec api.ImageSpec) (source, error)
	tools []string // programs of the host, one of which it needs
}

// methodOf returns a method of buildmethod.Table.
func methodOf(name string) method {
	switch name {
	case "debootstrap":
		return method{parseBootstrap, []string{"mmdebstrap", "debootstrap"}}
	case "dnf", "yum":
		return method{parseDNF, []string{"dnf"}}
	case "skeleton":
		return method{parseSkeleton, nil}
	case "template":
		return method{parseTemplate, nil}
	case "rsync":
		return method{parseRsync, []string{"rsync"}}
	case "clone":
		return method{parseClone, nil}
	case "host":
		return method{parseHost, nil}
	case "oci":
		return method{parseOCI, nil}
	}
	panic("no method " + name)
}

// Methods returns the methods that this host has the tools for.
func Methods() []string {
	var list []string
	for _, name := range buildmethod.Names() {
		tools := methodOf(name).tools
		if tools == nil || slices.ContainsFunc(tools, isInstalled) {
			list = append(list, name)
		}
	}
	return list
}

func isInstalled(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// Run makes the root filesystem. After an error, the directory holds an incomplete
// one, which the caller removes.
func Run(ctx context.Context, req Request) error {
	if req.Log == nil {
		req.Log = io.Discard
	}
	s, err := parse(req.Spec)
	if err != nil {
		return err
	}
	if req.Last != nil {
		s = upgrade{}
	}
	if err := run(ctx, s, req); err != nil {
		return fmt.Errorf("build by %s: %w", req.Spec.Method, err)
	}
	return nil
}

func run(ctx context.Context, s source, req Request) error {
	if err := s.fill(ctx, req); err != nil {
		return err
	}
	if err := fit(req); err != nil {
		return err
	}
	if err := putFiles(req); err != nil {
		return err
	}
	return tree.Normalize(ctx, req.Dir)
}

// Check refuses methods that are not there, and arguments that a method does not take.
func Check(spec api.ImageSpec) error {
	_, err := parse(spec)
	return err
}

func parse(spec api.ImageSpec) (source, error) {
	row, found := buildmethod.Find(spec.Method)
	if !found {
		return nil, fmt.Errorf("build by %s: %w", spec.Method, unknownMethod(spec.Method))
	}
	s, err := methodOf(spec.Method).parse(spec)
	if err == nil && len(spec.Packages) > 0 && !row.Packages {
		err = errors.New("it takes no packages: put them into what it copies, or use debootstrap or dnf")
	}
	if err != nil {
		return nil, fmt.Errorf("build by %s: %w", spec.Method, err)
	}
	return s, nil
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
		if err := steady(dir, f.Path, func() error { return (rootfs.Dir{Root: dir}).Write(f) }); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	return nil
}

// unknownMethod returns the error for a method that is not there, with what to use
// instead.
func unknownMethod(name string) error {
	all := buildmethod.Names()
	there := "there are " + strings.Join(all[:len(all)-1], ", ") + " and " + all[len(all)-1]
	for _, r := range buildmethod.Refused {
		if r.Name == name {
			return fmt.Errorf("the method is not offered: %s; use %s; %s", r.Why, r.Instead, there)
		}
	}
	if near := nearest.Word(name, all); near != "" {
		return fmt.Errorf("no such method; did you mean %s? %s", near, there)
	}
	return errors.New("no such method; " + there)
}
