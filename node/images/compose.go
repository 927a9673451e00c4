package images

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/images/composefs"
	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
	"github.com/vsfleet/vsfleet/node/probe"
	"github.com/vsfleet/vsfleet/node/procctx"
)

const (
	manifestFile = "manifest"
	digestFile   = "description.digest"
	plainTree    = "tree"
)

// composed reports whether new images are kept as manifest, description and objects.
func (s *Store) composed() bool { return !s.Plain && probe.Want(probe.Descriptions) == nil }

// hasManifest reports whether an image is kept that way.
func (s *Store) hasManifest(id string) (bool, error) {
	_, err := os.Lstat(filepath.Join(s.path(id), manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writeManifest calls write with a file for the manifest in dir.
func writeManifest(dir string, write func(*bufio.Writer) (tree.Sum, error)) (sum tree.Sum, err error) {
	err = linux.ReplaceFileSync(filepath.Join(dir, manifestFile), 0o600, func(f *os.File) error {
		w := bufio.NewWriterSize(f, 1<<18)
		if sum, err = write(w); err != nil {
			return err
		}
		return w.Flush()
	})
	return sum, err
}

// readManifest reads the manifest in dir, and returns its digest.
func readManifest(dir string, visit func(*tree.Entry) error) (tree.Sum, error) {
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if err != nil {
		return tree.Sum{}, err
	}
	defer f.Close()
	sum, err := tree.ReadManifest(f, visit)
	if err != nil {
		return tree.Sum{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return sum, nil
}

// keep brings what was made in the work directory into the form that an image has: a plain
// tree, or manifest, description and objects. Until release is called nobody removes the
// objects.
func (s *Store) keep(ctx context.Context, w *work) (release func(), err error) {
	if !w.composed {
		return func() {}, os.Rename(w.tree, filepath.Join(w.path, plainTree))
	}
	// An object under its name is on the disk.
	if err := unix.Syncfs(int(w.lock.Fd())); err != nil {
		return nil, fmt.Errorf("sync %s: %w", w.path, err)
	}
	lock, err := s.objects.Share(ctx)
	if err != nil {
		return nil, err
	}
	at := (*tree.Entry).Path
	if w.arrived {
		at = (*tree.Entry).Object
	}
	if err = s.compose(ctx, w.path, w.tree, at, s.objects.Take); err == nil {
		err = tree.Remove(w.tree)
	}
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return lock.Unlock, nil
}

// compose puts the contents of the files that the manifest in dir names into the store,
// from where they are below another directory, and describes the tree.
func (s *Store) compose(ctx context.Context, dir, from string, at func(*tree.Entry) string, put func(object string, dir *os.File, path string) (bool, error)) error {
	source, err := os.OpenFile(from, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer source.Close()
	done := make(map[string]bool)
	_, err = readManifest(dir, func(e *tree.Entry) error {
		object := e.Object()
		if err := ctx.Err(); err != nil || object == "" || done[object] {
			return err
		}
		done[object] = true
		_, err := put(object, source, at(e))
		return err
	})
	if err != nil {
		return err
	}
	return s.describe(ctx, dir)
}

// describe makes the description of the manifest in dir, and what belongs to it.
func (s *Store) describe(ctx context.Context, dir string) error {
	t, init, err := s.composeTree(ctx, dir)
	if err != nil {
		return err
	}
	var digest string
	err = linux.ReplaceFileSync(filepath.Join(dir, procctx.DescriptionFile), 0o600, func(f *os.File) error {
		w := bufio.NewWriterSize(f, 1<<18)
		if digest, err = write(t, w); err != nil {
			return err
		}
		return w.Flush()
	})
	if err == nil {
		err = linux.ReplaceFile(filepath.Join(dir, digestFile), []byte(digest+"\n"), 0o600)
	}
	// The store's path is absolute: the directory of an image is made elsewhere.
	links := map[string]string{procctx.ObjectsLink: s.objects.Dir(), procctx.InitLink: init}
	for name, target := range links {
		if err != nil {
			return err
		}
		link := filepath.Join(dir, name)
		if err = os.Remove(link); err == nil || errors.Is(err, fs.ErrNotExist) {
			if err = nil; target != "" {
				err = os.Symlink(target, link)
			}
		}
	}
	return err
}

func write(t *composefs.Tree, w io.Writer) (digest string, err error) {
	sum, err := t.Write(w)
	if err != nil {
		return "", fmt.Errorf("describe it: %w", err)
	}
	return hex.EncodeToString(sum[:]), nil
}

// inlined is the size up to which a description has a file's content itself, as with
// mkcomposefs.
const inlined = 64

// composeTree reads the manifest in dir for its description. It returns what the link
// /sbin/init of the tree leads to as well.
func (s *Store) composeTree(ctx context.Context, dir string) (t *composefs.Tree, init string, err error) {
	if t, err = composefs.New(composefs.Node{Mode: unix.S_IFDIR | 0o755}); err != nil {
		return nil, "", err
	}
	_, err = readManifest(dir, func(e *tree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if target, ok := e.HardLink(); ok {
			return t.Link(e.Path(), target)
		}
		n := composefs.Node{Mode: e.Mode(), Mtime: e.Mtime(), Nsec: e.Nsec(), Size: uint64(e.Size())}
		n.UID, n.GID = e.Owner()
		e.Xattrs(func(name, value string) { n.Xattrs = append(n.Xattrs, composefs.Xattr{Name: name, Value: value}) })
		if target, ok := e.Symlink(); ok {
			n.Payload = target
			if p := e.Path(); p == "sbin/init" || p == "usr/sbin/init" && init == "" {
				init = target
			}
		}
		if object := e.Object(); object != "" {
			n.Payload = objects.Place(object)
			if e.Size() <= inlined {
				content, err := s.read(object)
				if err != nil {
					return fmt.Errorf("%s: %w", e.Path(), err)
				}
				n.Payload, n.Content = "", content
			}
		}
		return t.Add(e.Path(), n)
	})
	return t, init, err
}

// read returns the content of a small object.
func (s *Store) read(object string) (string, error) {
	f, err := s.objects.Open(object)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, inlined+1))
	if err == nil {
		err = objects.Compare(object, b)
	}
	return string(b), err
}
