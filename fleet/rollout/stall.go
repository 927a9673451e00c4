package rollout

import (
	"context"
	"fmt"
	"io"
	"time"
)

// stallTimeout limits how long a stream of an image may stand still. It is long: a
// host may have a gigabyte to write to its disk after the last byte.
var stallTimeout = 15 * time.Minute

// moving is a stream whose timer starts anew with every read and write.
type moving struct {
	r     io.Reader
	w     io.Writer
	timer *time.Timer
}

// whileMoving calls carry, whose context ends when m stands still for stallTimeout.
// what names the stream in the error.
func whileMoving(ctx context.Context, what string, m *moving, carry func(context.Context) error) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	m.timer = time.AfterFunc(stallTimeout, func() {
		giveUp(fmt.Errorf("%s: nothing has moved for %s", what, stallTimeout))
	})
	defer m.timer.Stop()
	err := carry(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (m *moving) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.timer.Reset(stallTimeout)
	return n, err
}

func (m *moving) Write(b []byte) (int, error) {
	n, err := m.w.Write(b)
	m.timer.Reset(stallTimeout)
	return n, err
}
