package rollout

import (
	"context"
	"fmt"
	"sync"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// streams are the ways of an image from the hosts that have it, one after the
// other: if one breaks off, those that read it go on with the next, from its
// beginning.
type streams struct {
	mu    *sync.Mutex
	grown *sync.Cond
	list  []stream
	ended bool // no more will come
}

// stream is an image on its way from one host.
type stream struct {
	*spool
	source *host
}

func newStreams() streams {
	mu := new(sync.Mutex)
	return streams{mu: mu, grown: sync.NewCond(mu)}
}

func (l *streams) add(s stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, s)
	l.grown.Broadcast()
}

// end reports to at that no more will come.
func (l *streams) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.grown.Broadcast()
}

// at waits for the i-th stream and returns it; ok is false if there will be none.
func (l *streams) at(i int) (s stream, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i >= len(l.list) && !l.ended {
		l.grown.Wait()
	}
	if i >= len(l.list) {
		return s, false
	}
	return l.list[i], true
}

func (l *streams) close() {
	for _, s := range l.list {
		s.close()
	}
}

// export reads an image from the first host that has it, and if that fails from
// the next one, for all hosts that wait for it.
func (r *run) export(ctx context.Context, m *supply) {
	defer m.streams.end()
	for _, h := range m.holders {
		spool, err := newSpool(m.most(h))
		if err != nil {
			spool = brokenSpool(err)
		}
		m.streams.add(stream{spool, h})
		if err != nil {
			return
		}
		h.node.exports <- struct{}{}
		sent := &moving{w: spool}
		err = whileMoving(ctx, "export", sent, func(ctx context.Context) error { return h.node.ExportImage(ctx, m.id, sent) })
		<-h.node.exports
		if err != nil {
			err = fmt.Errorf("export from %s: %w", h.name, err)
		}
		spool.finish(err)
		if err == nil || ctx.Err() != nil {
			return
		}
	}
}

// most returns an upper bound for the stream of the image, by its size on the host:
// with holes and archive headers it is larger than the content of its files.
func (m *supply) most(h *host) int64 {
	img := m.built
	for _, i := range h.state.Images {
		if i.ID == m.id {
			img = i
		}
	}
	const largest = 1 << 44 // keeps the sum a number
	return 2*min(img.Bytes, largest) + 16<<10*min(img.Files, largest>>14) + 64<<20
}

// importImage imports an image from the first stream that is whole.
func (r *run) importImage(ctx context.Context, h *host, m *supply) error {
	var broken error
	for i := 0; ; i++ {
		s, ok := m.streams.at(i)
		if !ok {
			return broken
		}
		progress := func(done int64) {
			r.watchStep(h, *m.steps[h], report.Event{Kind: report.Progress, Message: fmt.Sprintf("%d MiB from %s", done>>20, s.source.name)})
		}
		taken := &moving{r: s.reader(ctx, progress)}
		err := whileMoving(ctx, "import", taken, func(ctx context.Context) error { return h.node.ImportImage(ctx, m.id, taken) })
		why := s.broken()
		if err == nil || why == nil || ctx.Err() != nil {
			return err
		}
		if broken = why; i > 0 || len(m.holders) > 1 { // not err, which is what the importing host makes of half a stream
			r.watchStep(h, *m.steps[h], report.Event{Kind: report.Warning, Message: why.Error()})
		}
	}
}
