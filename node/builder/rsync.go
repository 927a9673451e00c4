package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
)

// An rsync copies a tree by the host's rsync, from a directory or another machine.
type rsync struct {
	from    string
	options []string
}

func parseRsync(spec api.ImageSpec) (source, error) {
	values, rest, err := options(spec.Args, "dso") // -d: nothing
	if err != nil {
		return nil, err
	}
	var r rsync
	if r.from, err = once(values, 's'); err != nil {
		return nil, err
	}
	switch {
	case r.from == "":
		return nil, errors.New("which tree? want -s [[USER@]HOST:]DIRECTORY")
	case strings.HasPrefix(r.from, "-") || strings.ContainsAny(r.from, "\n\x00"):
		return nil, fmt.Errorf("source %q: want [[USER@]HOST:]DIRECTORY", r.from)
	case !r.remote() && !filepath.IsAbs(r.from):
		return nil, fmt.Errorf("source %q: want an absolute path, or HOST:DIRECTORY", r.from)
	}
	r.options = slices.Concat(values['o'], rest)
	for _, o := range r.options {
		name, _, _ := strings.Cut(o, "=")
		switch {
		case !strings.HasPrefix(o, "-"):
			return nil, fmt.Errorf("argument %q: want options of rsync, with their value after a =, as --exclude=/srv", o)
		case slices.Contains([]string{"--dry-run", "--list-only", "--daemon", "--server", "--sender", "--write-batch", "--only-write-batch", "--remove-source-files", "--remove-sent-files", "--help", "--version"}, name):
			return nil, fmt.Errorf("argument %s: what comes of it is no copy", o)
		}
	}
	return r, nil
}

// remote reports whether the tree is on another machine: HOST:DIRECTORY, HOST::MODULE or
// rsync://HOST/MODULE, as rsync decides it.
func (r rsync) remote() bool {
	host, _, ok := strings.Cut(r.from, ":")
	return ok && !strings.Contains(host, "/")
}

func (r rsync) fill(ctx context.Context, req Request) error {
	path, err := exec.LookPath("rsync")
	if err != nil {
		return missingf("rsync is not on this host; install it: apt-get install rsync (or dnf install rsync)")
	}
	if !r.remote() {
		if err := r.checkLocal(req.Dir); err != nil {
			return err
		}
	}
	args := append([]string{
		// Its defaults in util-vserver were -Hazx; -z is for slow lines alone.
		"-aHAXx", "--numeric-ids", "--no-devices",
		"--info=progress2", "--no-human-readable", "--outbuf=L",
		// Nobody is there to answer ssh.
		"--rsh=ssh -oBatchMode=yes",
		// What is the other host's own, or would control overlayfs here.
		"--filter=-x trusted.*", "--filter=-x user.overlay.*", "--filter=-x security.selinux", "--filter=-x security.ima", "--filter=-x security.evm",
	}, r.options...)
	p := program{path: path, copies: r.from, args: append(args, "--", strings.TrimSuffix(r.from, "/")+"/", req.Dir+"/")}
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		p.env = append(p.env, "SSH_AUTH_SOCK="+socket)
	}
	req.Progress.Report("copying "+r.from, 0, 0)
	return tool(ctx, req, p)
}

// checkLocal refuses a directory that is not there, and one that holds the tree that is
// being made.
func (r rsync) checkLocal(to string) error {
	f, err := openSource(r.from)
	if err != nil {
		return err
	}
	defer f.Close()
	from, err := filepath.EvalSymlinks(r.from)
	if err != nil {
		return err
	}
	if to, err = filepath.EvalSymlinks(to); err != nil {
		return err
	}
	if rel, err := filepath.Rel(from, to); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return fmt.Errorf("%s holds the images of this host: copy a part of it, or use the method host", r.from)
	}
	return nil
}
