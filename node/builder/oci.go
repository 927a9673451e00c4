package builder

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// An ociImage is an image in a layout on this host, or one of a registry. Registries are
// not asked from here: that takes HTTP and TLS, which vsnode does without. The controller
// sends the image as a layout.
type ociImage struct {
	from string // empty: what the controller sends
	ref  string // org.opencontainers.image.ref.name, or that of the registry; empty: the only one
	want platform
}

func parseOCI(spec api.ImageSpec) (source, error) {
	values, err := arguments(spec.Args, "srp")
	if err != nil {
		return nil, err
	}
	o := ociImage{want: platform{OS: "linux", Architecture: runtime.GOARCH}}
	given := ""
	for letter, to := range map[byte]*string{'s': &o.from, 'r': &o.ref, 'p': &given} {
		if *to, err = once(values, letter); err != nil {
			return nil, err
		}
	}
	switch {
	case o.from == "" && o.ref == "":
		return nil, errors.New("which image? want -r HOST/NAME:TAG of a registry, or a layout: -s DIRECTORY or -s FILE.tar")
	case o.from != "" && !filepath.IsAbs(o.from):
		return nil, fmt.Errorf("source %q: want the absolute path of a layout on the host; an image of a registry is named by -r alone", o.from)
	}
	if given != "" {
		parts := strings.Split(given, "/")
		if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
			return nil, fmt.Errorf("platform %q: want OS/ARCH[/VARIANT], as linux/arm64", given)
		}
		o.want = platform{OS: parts[0], Architecture: parts[1]}
		if len(parts) == 3 {
			o.want.Variant = parts[2]
		}
	}
	return o, nil
}

func (o ociImage) fill(ctx context.Context, req Request) error {
	name, file := o.from, o.from
	if name == "" {
		name, file, o.ref = o.ref, req.Input, ""
	}
	if file == "" {
		return fmt.Errorf("%s is in a registry, which the controller asks and not the host: use vsfleet, or make a layout on the host (skopeo copy docker://%[1]s oci:DIRECTORY) and name it by -s", name)
	}
	l, err := openLayout(file)
	if err != nil {
		return err
	}
	defer l.close()
	if err := o.unpack(ctx, req, l); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// An image's manifest and configuration (image-spec, manifest.md and config.md).
type manifest struct {
	Config descriptor   `json:"config"`
	Layers []descriptor `json:"layers"`

	config struct {
		platform
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
		Config struct {
			Entrypoint, Cmd []string
		} `json:"config"`
	}
}

func (o ociImage) unpack(ctx context.Context, req Request, l *layout) error {
	m, err := o.find(l)
	if err != nil {
		return err
	}
	for i, d := range m.Layers {
		if err := m.apply(ctx, req, l, i); err != nil {
			return fmt.Errorf("layer %d (%s): %w", i+1, d.Digest, err)
		}
	}
	if run := append(slices.Clone(m.config.Config.Entrypoint), m.config.Config.Cmd...); len(run) > 0 {
		fmt.Fprintf(req.Log, "as a container it would run %q\n", run)
	}
	return nil
}

// find returns the image that was asked for.
func (o ociImage) find(l *layout) (*manifest, error) {
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	if o.ref != "" {
		var names []string
		index = slices.DeleteFunc(index, func(d descriptor) bool {
			names = append(names, refName(d))
			return refName(d) != o.ref
		})
		if len(index) == 0 {
			return nil, fmt.Errorf("there is no image %q in it, only %q", o.ref, names)
		}
	}
	c := choice{layout: l, want: o.want, seen: map[string]bool{}}
	if err := c.visit(index, 0); err != nil {
		return nil, err
	}
	switch {
	case len(c.found) == 0 && len(c.others) == 0:
		return nil, errors.New("there is no image in it")
	case len(c.found) == 0:
		return nil, fmt.Errorf("there is no image for %s in it, only for %s", o.want, strings.Join(c.others, ", "))
	case len(c.found) > 1:
		return nil, fmt.Errorf("there are %d images for %s in it: name one by -r NAME, or its variant by -p OS/ARCH/VARIANT", len(c.found), o.want)
	}
	return c.found[0], nil
}

// A choice collects the images of a layout that are for a platform.
type choice struct {
	layout *layout
	want   platform
	seen   map[string]bool // digests
	found  []*manifest
	others []string // platforms
}

// visit looks at the images of an index, and of those in it.
func (c *choice) visit(index []descriptor, depth int) error {
	if depth > maxNested {
		return errors.New("indexes are nested too deeply")
	}
	for _, d := range index {
		if c.seen[d.Digest] || !isImage(d) {
			continue
		}
		c.seen[d.Digest] = true
		if d.Platform != nil && !c.want.takes(*d.Platform) { // it need not be in the layout
			c.others = append(c.others, d.Platform.String())
			continue
		}
		b, err := c.layout.read(d)
		if err != nil {
			return err
		}
		if isIndex(d.MediaType) {
			below, err := readIndex(b)
			if err == nil {
				err = c.visit(below, depth+1)
			}
			if err != nil {
				return err
			}
			continue
		}
		m, err := readManifest(c.layout, b)
		if err != nil {
			return err
		}
		if c.want.takes(m.config.platform) {
			c.found = append(c.found, m)
		} else {
			c.others = append(c.others, m.config.platform.String())
		}
	}
	return nil
}

const maxNested = 4

// refName returns the name that an image has in a layout.
func refName(d descriptor) string { return d.Annotations["org.opencontainers.image.ref.name"] }

// isImage reports whether a descriptor is of an image or an index of images, and not of
// what is stored beside one: attestations, signatures.
func isImage(d descriptor) bool {
	unknown := d.Platform != nil && d.Platform.OS == "unknown"
	return !unknown && (isIndex(d.MediaType) || d.MediaType == "application/vnd.oci.image.manifest.v1+json" ||
		d.MediaType == "application/vnd.docker.distribution.manifest.v2+json")
}

func isIndex(mediaType string) bool {
	return mediaType == "application/vnd.oci.image.index.v1+json" || mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

// takes reports whether an image of that platform is what is wanted.
func (p platform) takes(have platform) bool {
	return p.OS == have.OS && p.Architecture == have.Architecture && (p.Variant == "" || p.Variant == have.Variant)
}

func readManifest(l *layout, b []byte) (*manifest, error) {
	m := &manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	config, err := l.read(m.Config)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(config, &m.config); err != nil {
		return nil, fmt.Errorf("read the image's configuration: %w", err)
	}
	if len(m.Layers) != len(m.config.RootFS.DiffIDs) || len(m.Layers) == 0 {
		return nil, fmt.Errorf("its manifest has %d layers and its configuration %d: want the image of a root filesystem", len(m.Layers), len(m.config.RootFS.DiffIDs))
	}
	return m, nil
}

// apply unpacks a layer over those below. It is read twice: nothing of it is unpacked
// before both its digests are right, and what it removes is removed first.
func (m *manifest) apply(ctx context.Context, req Request, l *layout, i int) error {
	d := m.Layers[i]
	which := fmt.Sprintf("layer %d of %d", i+1, len(m.Layers))
	var markers tree.Markers
	sum := sha256.New()
	err := readLayer(ctx, l, d, req.progressOf("verifying "+which, d.Size), func(r io.Reader) error {
		free, err := tree.Free(req.Dir)
		if err != nil {
			return err
		}
		r = io.TeeReader(r, sum)
		if markers, err = tree.ReadMarkers(ctx, r, free); err != nil {
			return err
		}
		return drain(r)
	})
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != m.config.RootFS.DiffIDs[i] {
		return fmt.Errorf("unpacked it has the digest %s, and the image's configuration names %s", got, m.config.RootFS.DiffIDs[i])
	}
	if err := markers.Apply(ctx, req.Dir); err != nil {
		return err
	}
	return readLayer(ctx, l, d, req.progressOf("unpacking "+which, d.Size), func(r io.Reader) error {
		x, err := tree.Extract(ctx, req.Dir, r, tree.Layers)
		if err == nil {
			fmt.Fprintf(req.Log, "%s: %d entries, %d bytes; %d device nodes left out, %d removed of the layers below\n", which, x.Entries, x.Bytes, x.Nodes, len(markers))
			err = drain(r)
		}
		return err
	})
}

func (r Request) progressOf(message string, total int64) func(int64) {
	r.Progress.Report(message, 0, total)
	return func(done int64) { r.Progress.Report(message, done, total) }
}

// readLayer passes the tar archive of a layer to use, and compares the blob with its digest.
func readLayer(ctx context.Context, l *layout, d descriptor, report func(int64), use func(io.Reader) error) error {
	b, err := l.stream(ctx, d, report)
	if err != nil {
		return err
	}
	defer b.Close()
	var r io.Reader = bufio.NewReaderSize(b, 1<<18)
	done := func() {}
	switch d.MediaType {
	case "application/vnd.oci.image.layer.v1.tar":
	case "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.gzip":
		if r, done, err = decompress(r); err != nil {
			return err
		}
	default:
		return fmt.Errorf("its type is %q: want a tar archive, alone or packed by gzip or zstd", d.MediaType)
	}
	defer done()
	if err := use(r); err != nil {
		return err
	}
	return b.finish()
}

// drain reads what follows the end of an archive.
func drain(r io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r, maxPadding+1))
	if err == nil && n > maxPadding {
		err = errors.New("the archive goes on after its end")
	}
	return err
}
