package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

var content = strings.Repeat("an image ", 100_000)

// source returns a host that sends text and then ends with err.
func source(name, text string, err error) Source {
	return Source{
		Name: name, Most: 1 << 30, Turns: make(chan struct{}, 1),
		Export: func(_ context.Context, w io.Writer) error {
			if _, werr := io.WriteString(w, text); werr != nil {
				return werr
			}
			return err
		},
	}
}

func TestDelivery(t *testing.T) {
	gone := errors.New("connection lost")
	silent := func(ctx context.Context, _ io.Writer) error { <-ctx.Done(); return ctx.Err() }
	for _, row := range []struct {
		name    string
		sources []Source
		broken  []string // as the targets are told of sources
		err     string   // of each target
	}{
		{"from the first source", []Source{source("a", content, nil), source("b", "never asked", nil)}, nil, ""},
		{"from the next source, from its beginning, after the first broke off",
			[]Source{source("a", content[:70_000], gone), source("b", content, nil)}, []string{"export from a: connection lost"}, ""},
		{"from nobody after all broke off",
			[]Source{source("a", "", gone), source("b", content[:10], gone)},
			[]string{"export from a: connection lost", "export from b: connection lost"}, "export from b: connection lost"},
		{"from the next source after the first stood still",
			[]Source{{Name: "a", Most: 1 << 30, Turns: make(chan struct{}, 1), Export: silent}, source("b", content, nil)},
			[]string{"export from a: export: nothing has moved for 200ms"}, ""},
		{"an only source that breaks off is an error and no warning", []Source{source("a", "", gone)}, nil, "export from a: connection lost"},
		{"more than the source may send",
			[]Source{{Name: "a", Most: 10, Turns: make(chan struct{}, 1), Export: source("a", content, nil).Export}}, nil, "export from a: it is more than the 0 MiB that such an image can be"},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := New(200 * time.Millisecond)
			var targets sync.WaitGroup
			for i := range 3 {
				targets.Go(func() {
					var got strings.Builder
					var broken []string
					err := d.Receive(within(t), func(_ context.Context, r io.Reader) error {
						got.Reset()
						_, err := io.Copy(&got, r)
						return err
					}, Watch{Broken: func(err error) { broken = append(broken, err.Error()) }})
					if text := fmt.Sprint(err); err != nil && text != row.err || err == nil && row.err != "" {
						t.Errorf("target %d: error %v, want %q", i, err, row.err)
					}
					if err == nil && got.String() != content {
						t.Errorf("target %d has %d bytes, want %d", i, got.Len(), len(content))
					}
					if fmt.Sprint(broken) != fmt.Sprint(row.broken) {
						t.Errorf("target %d was told %q, want %q", i, broken, row.broken)
					}
				})
			}
			d.Send(within(t), row.sources)
			targets.Wait()
			d.Close()
		})
	}
}

func TestATargetThatStandsStillHoldsUpNoOther(t *testing.T) {
	d := New(200 * time.Millisecond)
	defer d.Close()
	d.Send(within(t), []Source{source("a", content, nil)})
	err := d.Receive(within(t), func(ctx context.Context, _ io.Reader) error { <-ctx.Done(); return ctx.Err() }, Watch{})
	if want := "import: nothing has moved for 200ms"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
	if err := d.Receive(within(t), func(_ context.Context, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }, Watch{}); err != nil {
		t.Errorf("the other target: %v", err)
	}
}
