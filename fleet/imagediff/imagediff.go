package imagediff

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/packages"
)

// An Image is a side of a comparison.
type Image struct {
	ID string
	// Read writes a file of the image, or its manifest if the path is empty, compressed by
	// zstd.
	Read func(ctx context.Context, path string, w io.Writer) error
}

// Compare fills in what differs between two images.
func Compare(ctx context.Context, d *report.ImageDiff, from, to Image) error {
	var trees [2]manifest
	var installed [2]packages.Installed
	for i, image := range []Image{from, to} {
		if i == 1 && from.ID == to.ID {
			trees[1], installed[1] = trees[0], installed[0]
			break
		}
		var err error
		if trees[i], err = image.manifest(ctx); err != nil {
			return err
		}
		if installed[i], err = image.packages(ctx, trees[i]); err != nil {
			d.Problems = append(d.Problems, fmt.Sprintf("the packages of image %s are not known: %v", image.ID, err))
		}
	}
	compareFiles(d, trees[0], trees[1])
	if d.Problems == nil {
		comparePackages(d, installed[0], installed[1])
	}
	return nil
}

// manifest reads the manifest of an image.
func (i Image) manifest(ctx context.Context) (m manifest, err error) {
	err = i.stream(ctx, "", func(r io.Reader) error {
		m, err = readManifest(r, i.ID)
		return err
	})
	return m, err
}

// stream passes what Read writes to use.
func (i Image) stream(ctx context.Context, path string, use func(io.Reader) error) error {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := i.Read(ctx, path, w)
		w.CloseWithError(err)
		ended <- err
	}()
	err := use(r)
	if err != nil {
		giveUp()
	}
	r.CloseWithError(err)
	if read := <-ended; read != nil && (err == nil || errors.Is(err, read)) {
		return read
	}
	return err
}

// packages reads the package database of an image.
func (i Image) packages(ctx context.Context, m manifest) (packages.Installed, error) {
	return packages.Find(func(path string, limit int64) (data []byte, err error) {
		e, there := m[path]
		if !there || e.kind != "f" {
			return nil, fs.ErrNotExist
		}
		if e.size >= limit {
			return nil, fmt.Errorf("it has %d MiB, and %d are read at most", e.size>>20, limit>>20)
		}
		err = i.stream(ctx, path, func(r io.Reader) error {
			data, err = readFile(r, e)
			return err
		})
		return data, err
	})
}

// readFile reads a file that was compressed by zstd.
func readFile(r io.Reader, e entry) ([]byte, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var data bytes.Buffer
	if _, err := io.Copy(&data, io.LimitReader(z, e.size+1)); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data.Bytes()); hex.EncodeToString(sum[:]) != e.content {
		return nil, errors.New("the host sends another content than the image has")
	}
	return data.Bytes(), nil
}

// comparePackages adds the packages that differ to a record, in order of their names.
func comparePackages(d *report.ImageDiff, from, to packages.Installed) {
	names := map[string]bool{}
	for _, set := range []packages.Set{from.Packages, to.Packages} {
		for name := range set {
			names[name] = true
		}
	}
	d.PackagesFrom, d.PackagesTo = len(from.Packages), len(to.Packages)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p := report.PackageDiff{Name: name, From: from.Packages[name], To: to.Packages[name]}
		switch {
		case p.From == p.To:
			continue
		case p.From == "":
			p.Change = report.Added
		case p.To == "":
			p.Change = report.Removed
		case from.Tool != to.Tool: // their versions cannot be compared
			p.Change = report.Changed
		default:
			if p.Change = report.Upgraded; to.Tool.Compare(p.From, p.To) > 0 {
				p.Change = report.Downgraded
			}
		}
		d.Packages = append(d.Packages, p)
	}
}
