package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestADifferenceIsMadeOnce(t *testing.T) {
	source, target, one, two := versions(t)
	first := sent(t, source, two, one)
	one2, err := os.Stat(source.keptPath(two, one))
	must(t, err)
	// What it was made of is damaged now, and not looked at again, also by another process.
	_, second := twoVersions()
	damage(t, source, second["bin/tool"])
	again, err := Open(source.dir)
	must(t, err)
	if !bytes.Equal(sent(t, again, two, one), first) {
		t.Error("another difference is sent")
	}
	if st, err := os.Stat(source.keptPath(two, one)); err != nil || !os.SameFile(st, one2) {
		t.Errorf("it was made again (%v)", err)
	}
	_, _, err = target.Import(t.Context(), bytes.NewReader(first), two)
	must(t, err)
	checked(t, target)
}

func TestADifferenceThatIsKeptAndDamagedIsMadeAnew(t *testing.T) {
	for _, row := range []struct {
		name   string
		damage func(b []byte) []byte
	}{
		{"a byte of it is another", func(b []byte) []byte { b[len(b)/2]++; return b }},
		{"it is cut off", func(b []byte) []byte { return b[:len(b)-1] }},
		{"it is empty", func(b []byte) []byte { return nil }},
		{"it is of another version of vsnode", func(b []byte) []byte { return append([]byte("vsfleet-delta-1\n"), b[len(differenceMagic):]...) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			source, target, one, two := versions(t)
			good := sent(t, source, two, one)
			b, err := os.ReadFile(source.keptPath(two, one))
			must(t, err)
			must(t, os.WriteFile(source.keptPath(two, one), row.damage(b), 0o600))
			if !bytes.Equal(sent(t, source, two, one), good) {
				t.Error("it was sent")
			}
			carry(t, source, target, two, one)
			checked(t, target)
		})
	}
}

// Those who want the same difference at once get it, and it is made by one of them.
func TestADifferenceForManyAtOnce(t *testing.T) {
	source, _, one, two := versions(t)
	var streams [4]bytes.Buffer
	var all sync.WaitGroup
	for i := range streams {
		all.Go(func() {
			if err := source.ExportDifference(t.Context(), two, one, 0, &streams[i]); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range streams {
		if !bytes.Equal(streams[i].Bytes(), streams[0].Bytes()) {
			t.Errorf("stream %d is another", i)
		}
	}
	if list, _ := filepath.Glob(filepath.Join(source.dir, "*", "*"+keptSuffix)); len(list) != 1 {
		t.Errorf("kept: %v", list)
	}
}

// A slow receiver of a difference holds up nobody else who wants it.
func TestADifferenceThatAnotherOneMakesSlowly(t *testing.T) {
	defer func(was time.Duration) { makerWait = was }(makerWait)
	makerWait = 20 * time.Millisecond
	source, target, one, two := versions(t)
	r, w := io.Pipe()
	ended := make(chan error)
	go func() { ended <- source.ExportDifference(t.Context(), two, one, 0, w) }()
	if _, err := r.Read(make([]byte, 1)); err != nil { // it is under way
		t.Fatal(err)
	}
	carry(t, source, target, two, one)
	r.Close()
	if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the slow one: %v", err)
	}
	checked(t, target)
	checked(t, source)
}

type closedPipe struct{ left int }

func (c *closedPipe) Write(b []byte) (int, error) {
	if c.left -= len(b); c.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

func TestADifferenceThatWasNotMadeToItsEndIsNotKept(t *testing.T) {
	source, _, one, two := versions(t)
	good := sent(t, source, two, one)
	must(t, os.Remove(source.keptPath(two, one)))
	for _, at := range []int{0, len(good) / 2, len(good) - 1} {
		if err := source.ExportDifference(t.Context(), two, one, 0, &closedPipe{at}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("cut off after %d bytes: %v", at, err)
		}
		checked(t, source)
		if _, err := os.Stat(source.keptPath(two, one)); err == nil {
			t.Fatalf("kept after %d bytes", at)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := source.ExportDifference(ctx, two, one, 0, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	checked(t, source)
}

func TestWhatIsKeptGoesWithItsImages(t *testing.T) {
	for _, row := range []struct {
		name string
		gone func(s *Store, one, two string) error
		kept int
	}{
		{"both are there", func(*Store, string, string) error { return nil }, 1},
		{"the base is gone", func(s *Store, one, _ string) error { return s.Remove(t.Context(), one, nobody) }, 0},
		{"the image is gone", func(s *Store, _, two string) error { return s.Remove(t.Context(), two, nobody) }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			source, _, one, two := versions(t)
			sent(t, source, two, one)
			must(t, row.gone(source, one, two))
			_, err := source.Collect(t.Context(), false, false, nobody)
			must(t, err)
			if list, _ := filepath.Glob(filepath.Join(source.dir, "*", "*"+keptSuffix)); len(list) != row.kept {
				t.Errorf("kept: %v", list)
			}
		})
	}
}

func TestNotEverythingIsKept(t *testing.T) {
	s := open(t)
	at := time.Now()
	keep := func(n int, size int64) {
		path := s.keptPath("sha256:two", fmt.Sprint("sha256:", n))
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, size))
		at = at.Add(time.Second)
		must(t, os.Chtimes(path, at, at))
		s.trimKept()
	}
	left := func() int {
		list, _ := filepath.Glob(filepath.Join(s.dir, "*", "*"+keptSuffix))
		return len(list)
	}
	for n := range mostKept + 3 {
		keep(n, 1)
	}
	if left() != mostKept {
		t.Errorf("%d are kept", left())
	}
	keep(mostKept+3, mostKeptBytes-1)
	if left() != 2 {
		t.Errorf("%d are kept beside a large one", left()-1)
	}
	if _, err := os.Stat(s.keptPath("sha256:two", "sha256:0")); err == nil {
		t.Error("the first is kept")
	}
}
