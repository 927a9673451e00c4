package rollout

import (
	"context"
	"fmt"
	"io"
	"time"
)

// stallTimeout is how long a stream of an image may stand still: a host writes a
// gigabyte to its disk when the last of it has come, and says nothing meanwhile.
var stallTimeout = 15 * time.Minute

// moving is the bytes of an image on their way; each of them puts off the end of
// the patience with it.
type moving struct {
	r     io.Reader
	w     io.Writer
	timer *time.Timer
}

// whileMoving carries an image as long as it moves. what is for the error.
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
