package rollout

import (
	"context"
	"fmt"
	"sync"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// copies are the streams by which an image leaves the hosts that have it, one
// after the other: if one breaks off, those that read it go on with the next,
// from its beginning.
type copies struct {
	mu    *sync.Mutex
	grown *sync.Cond
	list  []copying
	ended bool // no more will come
}

// copying is one of them.
type copying struct {
	stream *spool
	source *host
}

func newCopies() copies {
	mu := new(sync.Mutex)
	return copies{mu: mu, grown: sync.NewCond(mu)}
}

// add begins one.
func (c *copies) add(one copying) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, one)
	c.grown.Broadcast()
}

// end says that no more will come.
func (c *copies) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.grown.Broadcast()
}

// at waits for the stream of that index. ok is false if there will be none.
func (c *copies) at(i int) (one copying, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i >= len(c.list) && !c.ended {
		c.grown.Wait()
	}
	if i >= len(c.list) {
		return one, false
	}
	return c.list[i], true
}

func (c *copies) close() {
	for _, one := range c.list {
		one.stream.close()
	}
}

// export hands an image to all that wait for it: from the first host that has
// it, and if that fails from the next one.
func (r *run) export(ctx context.Context, m *missing) {
	defer m.copies.end()
	for _, h := range m.holders {
		stream, err := newSpool(m.most(h))
		if err != nil {
			stream = brokenSpool(err)
		}
		m.copies.add(copying{stream, h})
		if err != nil {
			return
		}
		h.node.exports <- struct{}{}
		sent := &moving{w: stream}
		err = whileMoving(ctx, "export", sent, func(ctx context.Context) error { return h.node.ExportImage(ctx, m.id, sent) })
		<-h.node.exports
		if err != nil {
			err = fmt.Errorf("export from %s: %w", h.Host, err)
		}
		stream.finish(err)
		if err == nil || ctx.Err() != nil {
			return
		}
	}
}

// most is what the stream of the image may come to, by what its host says of it:
// files with holes and archive headers take more than the files hold.
func (m *missing) most(h *host) int64 {
	img := m.built
	for _, i := range h.State.Images {
		if i.ID == m.id {
			img = i
		}
	}
	const largest = 1 << 44 // keeps the sum a number
	return 2*min(img.Bytes, largest) + 16<<10*min(img.Files, largest>>14) + 64<<20
}

// take imports an image from the first stream that is whole.
func (r *run) take(ctx context.Context, h *host, m *missing) error {
	var broken error
	for i := 0; ; i++ {
		one, ok := m.copies.at(i)
		if !ok {
			return broken
		}
		progress := func(done int64) {
			r.watchStep(h, *m.steps[h], report.Event{Kind: report.Progress, Message: fmt.Sprintf("%d MiB from %s", done>>20, one.source.Host)})
		}
		taken := &moving{r: one.stream.reader(ctx, progress)}
		err := whileMoving(ctx, "import", taken, func(ctx context.Context) error { return h.node.ImportImage(ctx, m.id, taken) })
		why := one.stream.broken()
		if err == nil || why == nil || ctx.Err() != nil {
			return err
		}
		if broken = why; i > 0 || len(m.holders) > 1 { // what the importing end makes of half a stream says nothing
			r.watchStep(h, *m.steps[h], report.Event{Kind: report.Warning, Message: why.Error()})
		}
	}
}
