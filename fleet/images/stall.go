package images

import (
	"context"
	"fmt"
	"io"
	"time"
)

// moving is a stream whose timer starts anew with every read and write.
type moving struct {
	r     io.Reader
	w     io.Writer
	limit time.Duration
	timer *time.Timer
}

// carry calls transfer with a context that ends when m stands still for its limit.
// what names the stream in the error.
func (m *moving) carry(ctx context.Context, what string, transfer func(context.Context) error) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	m.timer = time.AfterFunc(m.limit, func() {
		giveUp(fmt.Errorf("%s: nothing has moved for %s", what, m.limit))
	})
	defer m.timer.Stop()
	err := transfer(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (m *moving) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.timer.Reset(m.limit)
	return n, err
}

func (m *moving) Write(b []byte) (int, error) {
	n, err := m.w.Write(b)
	m.timer.Reset(m.limit)
	return n, err
}
