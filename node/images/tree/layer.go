package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Markers of the OCI image format (image-spec, layer.md): ".wh.NAME" removes NAME of the
// layers below, ".wh..wh..opq" all that they have in its directory. Other names that
// begin with ".wh..wh." are aufs's own.
const (
	markerPrefix = ".wh."
	ownPrefix    = ".wh..wh."
	opaqueMarker = ".wh..wh..opq"
)

func isMarker(name string) bool { return strings.HasPrefix(path.Base(name), markerPrefix) }

// maxMarkers bounds the memory for the markers of a layer.
const maxMarkers = 1 << 18

// Markers is what a layer removes of the layers below it, as paths of the archive.
type Markers []string

// ReadMarkers reads the archive of a layer for its markers. They concern the layers
// below, wherever they are in the archive, so that [Markers.Apply] comes before
// [Extract]. It refuses a layer of more files and bytes than fit into space.
func ReadMarkers(ctx context.Context, r io.Reader, space int64) (Markers, error) {
	var m Markers
	tr := tar.NewReader(r)
	left := space
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return m, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the archive: %w", err)
		}
		if left -= overhead + h.Size; left < 0 || h.Size > space {
			return nil, fmt.Errorf("it holds more than there is room for, %d MiB free: %w", space>>20, unix.ENOSPC)
		}
		name, err := clean(h.Name)
		if err != nil {
			return nil, err
		}
		if !isMarker(name) {
			continue
		}
		base := path.Base(name)
		hidden := strings.TrimPrefix(base, markerPrefix)
		switch {
		case base == opaqueMarker:
		case strings.HasPrefix(base, ownPrefix):
			continue
		case hidden == "" || hidden == "." || hidden == "..":
			return nil, fmt.Errorf("%q removes no file's name", h.Name)
		}
		if m = append(m, name); len(m) > maxMarkers {
			return nil, fmt.Errorf("more than %d files are removed by one layer", maxMarkers)
		}
	}
}

// Apply removes what the markers name from the tree of the layers below. Directories
// keep their times. Links in a path are followed within the tree.
func (m Markers) Apply(ctx context.Context, dir string) error {
	p, err := newPlacer(ctx, dir, unix.RESOLVE_IN_ROOT)
	if err != nil {
		return err
	}
	defer p.close()
	for _, name := range m {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.unmark(name); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
	}
	return p.finish()
}

func (p *placer) unmark(name string) error {
	fd, base, err := p.openParent(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // nothing of the layers below is there
	}
	if err != nil {
		return err
	}
	if base != opaqueMarker {
		return removeAt(fd, strings.TrimPrefix(base, markerPrefix))
	}
	opened, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return emptyDirectory(opened)
}
