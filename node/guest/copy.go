package guest

import (
	"context"
	"errors"
	"io"
	"path"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// PutFiles puts the tree of files that a tar stream holds into a guest, running or not
// (see rootfs.Dir.Put). The guest is held meanwhile: it does not start or stop.
func (h *Host) PutFiles(ctx context.Context, req api.PutFiles, stream io.Reader) error {
	return h.copyFiles(ctx, req.Guest, req.Path, "copy files to", func(r guestRoot, p *patience) error {
		return r.Put(ctx, req.Path, req.Owner, &patientReader{stream, p})
	})
}

// GetFiles writes what is at a path of a guest, running or not, as a tar stream (see
// rootfs.Dir.Get). note is called for what is left out. The guest is held meanwhile.
func (h *Host) GetFiles(ctx context.Context, req api.GetFiles, stream io.Writer, note func(string)) error {
	return h.copyFiles(ctx, req.Guest, req.Path, "copy files from", func(r guestRoot, p *patience) error {
		return r.Get(ctx, req.Path, &patientWriter{stream, p}, note)
	})
}

func (h *Host) copyFiles(ctx context.Context, name, at, verb string, do func(guestRoot, *patience) error) error {
	return h.Hold(ctx, name, verb, func(g *Guest) error {
		if err := h.exists(name); err != nil {
			return err
		}
		if !path.IsAbs(at) {
			return errors.New(at + ": a path in a guest begins with /")
		}
		p := &patience{time.NewTimer(rootPatience)}
		_, err := inRootFor(ctx, g, p.timer, func(r guestRoot) (none struct{}, _ error) { return none, do(r, p) })
		return err
	})
}

// patience is how long a guest's filesystem may take between two pieces of a stream. What
// the controller takes for its side of the stream does not count.
type patience struct{ timer *time.Timer }

func (p *patience) pause()  { p.timer.Stop() }
func (p *patience) resume() { p.timer.Reset(rootPatience) }

type patientReader struct {
	io.Reader
	*patience
}

func (r *patientReader) Read(b []byte) (int, error) {
	r.pause()
	defer r.resume()
	return r.Reader.Read(b)
}

type patientWriter struct {
	io.Writer
	*patience
}

func (w *patientWriter) Write(b []byte) (int, error) {
	w.pause()
	defer w.resume()
	return w.Writer.Write(b)
}
