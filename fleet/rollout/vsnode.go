package rollout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// vsnode runs vsnode on a host, and gives what it says if it fails.
func vsnode(ctx context.Context, h *host, stdin io.Reader, stdout io.Writer, args ...string) error {
	var stderr tail
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	moves := &moving{r: stdin, w: stdout}
	moves.timer = time.AfterFunc(stallTimeout, func() {
		giveUp(fmt.Errorf("vsnode %s: nothing has moved for %s", strings.Join(args, " "), stallTimeout))
	})
	defer moves.timer.Stop()
	if stdin != nil {
		stdin = moves
	}
	exit, err := h.node.Run(ctx, stdin, moves, &stderr, args...)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case err != nil:
		return err
	case exit != 0:
		text := strings.TrimPrefix(stderr.last(), "vsnode: ")
		if text == "" {
			text = fmt.Sprintf("vsnode %s: exit status %d", strings.Join(args, " "), exit)
		}
		return errors.New(text)
	}
	return nil
}

// stallTimeout is how long a stream of an image may stand still: a host writes a
// gigabyte to its disk when the last of it has come, and says nothing meanwhile.
var stallTimeout = 15 * time.Minute

// moving puts off the end of its patience as long as something moves.
type moving struct {
	r     io.Reader
	w     io.Writer
	timer *time.Timer
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

// tail keeps the end of what a program says.
type tail struct{ buf []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - 4096; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

// last is the last line.
func (t *tail) last() string {
	text := bytes.TrimRight(t.buf, " \r\n")
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
