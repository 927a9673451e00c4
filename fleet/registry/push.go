package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// idLabel is the label with the ID of an image's tree.
const idLabel = "io.vsfleet.image.id"

// maxLayers is the number of layers from which on an image is pushed as one again.
const maxLayers = 32

// Content is an image that a host has.
type Content struct {
	ID      string // of its tree
	Arch    string
	Created time.Time
	Labels  map[string]string
	// Has reports whether the host has another image, Export writes one as a stream, and Most
	// is an upper bound for the bytes in that.
	Has    func(id string) bool
	Export func(ctx context.Context, id string, w io.Writer) error
	Most   func(id string) int64
}

// Pushed is what became of an image in a registry.
type Pushed struct {
	Source string // its manifest: "HOST/NAME@sha256:…"
	Bytes  int64  // of the layer that was made; 0: the registry had the image
	Base   string // the ID of the tree that the layer is put on; empty: it is the whole image
}

// Push writes an image to a registry, under a tag. If the tag is an image that vsfleet has
// pushed, and that tree is still on the host, what differs becomes a layer on its layers. The
// tag is set last. progress receives the bytes that were sent and those of all; it may be nil.
func (c *Client) Push(ctx context.Context, reference string, content Content, progress func(done, total int64)) (Pushed, error) {
	if err := Check(reference); err != nil {
		return Pushed{}, err
	}
	ref, err := name.NewTag(reference)
	if err != nil {
		return Pushed{}, fmt.Errorf("image %q: want HOST/NAME:TAG: a digest is what comes of it", reference)
	}
	options, err := c.options(ctx)
	if err != nil {
		return Pushed{}, err
	}
	base, err := there(ref, options)
	if err != nil {
		return Pushed{}, explain(ref, err)
	}
	id, err := c.baseOf(base, content)
	switch {
	case err != nil:
		return Pushed{}, explain(ref, err)
	case id == content.ID:
		return pushed(ref, base, 0, "")
	case id == "":
		base = nil
	}
	layer, err := content.layer(ctx, id)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Pushed{}, err
	}
	defer layer.Close()
	img, err := content.image(base, layer)
	if err != nil {
		return Pushed{}, err
	}
	if err := write(ctx, ref, img, options, progress); err != nil {
		return Pushed{}, explain(ref, err)
	}
	return pushed(ref, img, layer.size, id)
}

func pushed(ref name.Tag, img v1.Image, bytes int64, base string) (Pushed, error) {
	digest, err := img.Digest()
	return Pushed{Source: canonical(ref.Context().Digest(digest.String())), Bytes: bytes, Base: base}, err
}

// there returns the image that a tag names, or nil.
func there(ref name.Tag, options []remote.Option) (v1.Image, error) {
	desc, err := remote.Get(ref, options...)
	var answer *transport.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	case !desc.MediaType.IsImage():
		return nil, fmt.Errorf("the tag names no single image (%s): push to a tag of its own", desc.MediaType)
	}
	return desc.Image()
}

// baseOf returns the ID of the tree of an image in the registry on which a layer may be put:
// that of the content itself if there is nothing to push, "" if the image is to be whole.
func (c *Client) baseOf(base v1.Image, content Content) (string, error) {
	if base == nil {
		return "", nil
	}
	config, err := base.ConfigFile()
	if err != nil {
		return "", err
	}
	id := config.Config.Labels[idLabel]
	if id == content.ID && config.Architecture == content.Arch {
		return id, nil
	}
	if id == "" || id == content.ID || config.Architecture != content.Arch || len(config.RootFS.DiffIDs) >= maxLayers || !content.Has(id) {
		return "", nil
	}
	return id, nil
}

// image returns the image with a layer on the layers of base, which may be nil.
func (c Content) image(base v1.Image, layer *fileLayer) (v1.Image, error) {
	if base == nil {
		base = mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	img, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "vsfleet image push", Created: v1.Time{Time: c.Created}}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", c.Arch, v1.Time{Time: c.Created}
	config.Config.Labels = map[string]string{idLabel: c.ID}
	for name, value := range c.Labels {
		config.Config.Labels[name] = value
	}
	return mutate.ConfigFile(img, config)
}

func write(ctx context.Context, ref name.Tag, img v1.Image, options []remote.Option, progress func(done, total int64)) error {
	if progress == nil {
		return remote.Write(ref, img, options...)
	}
	updates := make(chan v1.Update, 16)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for u := range updates { // closed by Write
			progress(u.Complete, u.Total)
		}
	}()
	err := remote.Write(ref, img, append(options, remote.WithProgress(updates))...)
	<-ended
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
