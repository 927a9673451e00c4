package images

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Source is a host that has the image.
type Source struct {
	Name string
	// Export writes the image to w.
	Export func(ctx context.Context, w io.Writer) error
	// Most is an upper bound for the stream, in bytes: a host that sends without
	// end is not believed.
	Most int64
	// Turns bounds the exports of the host that run at once, by its capacity.
	Turns chan struct{}
}

// Delivery is an image under way to any number of hosts.
type Delivery struct {
	stall time.Duration

	mu      sync.Mutex
	grown   *sync.Cond
	streams []stream // one per source that was tried
	sources int
	ended   bool // no more streams will come
}

// stream is the image on its way from one source.
type stream struct {
	*spool
	source string
}

// New returns a delivery that gives up sources and targets which stand still for
// stall.
func New(stall time.Duration) *Delivery {
	d := &Delivery{stall: stall}
	d.grown = sync.NewCond(&d.mu)
	return d
}

// Send reads the image from the first source, and if that fails from the next
// one. It is called once; targets may be waiting already.
func (d *Delivery) Send(ctx context.Context, sources []Source) {
	d.update(func() { d.sources = len(sources) })
	defer d.update(func() { d.ended = true })
	for _, s := range sources {
		spool, err := newSpool(s.Most)
		if err != nil {
			spool = brokenSpool(err)
		}
		d.update(func() { d.streams = append(d.streams, stream{spool, s.Name}) })
		if err != nil {
			return
		}
		err = d.export(ctx, s, spool)
		spool.finish(err)
		if err == nil || ctx.Err() != nil {
			return
		}
	}
}

// export fills a spool from a source, when it is its turn.
func (d *Delivery) export(ctx context.Context, s Source, spool *spool) error {
	s.Turns <- struct{}{}
	defer func() { <-s.Turns }()
	sent := &moving{w: spool, limit: d.stall}
	if err := sent.carry(ctx, "export", func(ctx context.Context) error { return s.Export(ctx, sent) }); err != nil {
		return fmt.Errorf("export from %s: %w", s.Name, err)
	}
	return nil
}

// Watch is called while a target takes an image. Both may be nil.
type Watch struct {
	Progress func(done int64, source string) // bytes, now and then
	Broken   func(err error)                 // one of several sources broke off
}

// Receive hands the image to a target: take is called with a stream that it has to
// read to its end, again for each source that breaks off on the way. Receive waits
// for the sources; after Send has given up it returns why.
func (d *Delivery) Receive(ctx context.Context, take func(context.Context, io.Reader) error, watch Watch) error {
	var broken error
	for i := 0; ; i++ {
		s, several, ok := d.at(i)
		if !ok {
			return broken
		}
		progress := func(done int64) {
			if watch.Progress != nil {
				watch.Progress(done, s.source)
			}
		}
		taken := &moving{r: s.reader(ctx, progress), limit: d.stall}
		err := taken.carry(ctx, "import", func(ctx context.Context) error { return take(ctx, taken) })
		why := s.broken()
		if err == nil || why == nil || ctx.Err() != nil {
			return err
		}
		broken = why // not err, which is what the target makes of half a stream
		if several && watch.Broken != nil {
			watch.Broken(why)
		}
	}
}

// Close frees what the image takes on this machine. No target may be receiving.
func (d *Delivery) Close() {
	for _, s := range d.streams {
		s.close()
	}
}

// at waits for the i-th stream and returns it; ok is false if there will be none.
func (d *Delivery) at(i int) (s stream, several, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i >= len(d.streams) && !d.ended {
		d.grown.Wait()
	}
	if i >= len(d.streams) {
		return s, false, false
	}
	return d.streams[i], d.sources > 1, true
}

func (d *Delivery) update(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
	d.grown.Broadcast()
}
