package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestSpoolIsReadByManyWhileItIsWritten(t *testing.T) {
	s, err := newSpool(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	var readers sync.WaitGroup
	for i := range 5 {
		readers.Go(func() {
			r := s.reader(within(t), nil)
			if i == 0 {
				r = iotest.HalfReader(r) // the slow one
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("reader %d has %d bytes (%v), want %d", i, len(got), err, len(want))
			}
		})
	}
	for part := want; len(part) > 0; {
		n := min(len(part), 1000)
		if _, err := s.Write(part[:n]); err != nil {
			t.Fatal(err)
		}
		part = part[n:]
	}
	s.finish(nil)
	readers.Wait()
	if got, err := io.ReadAll(s.reader(within(t), nil)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("who comes late has %d bytes (%v), want %d", len(got), err, len(want))
	}
}

func TestSpoolTellsItsReadersThatItBroke(t *testing.T) {
	s, err := newSpool(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	broken := errors.New("the source is gone")
	done := make(chan error)
	go func() {
		_, err := io.ReadAll(s.reader(within(t), nil))
		done <- err
	}()
	if _, err := io.WriteString(s, "half of it"); err != nil {
		t.Fatal(err)
	}
	s.finish(broken)
	if err := <-done; !errors.Is(err, broken) {
		t.Errorf("the reader heard %v, want %v", err, broken)
	}
}

func TestSpoolLetsAReaderGoWhoseContextEnds(t *testing.T) {
	s, err := newSpool(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	ctx, cancel := context.WithCancelCause(within(t))
	why := errors.New("interrupted")
	done := make(chan error)
	go func() {
		_, err := io.ReadAll(s.reader(ctx, nil))
		done <- err
	}()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("the reader heard %v, want %v", err, why)
	}
}

func TestSpoolThatIsFilledWithoutEnd(t *testing.T) {
	block := make([]byte, 1<<20)
	fill := func(t *testing.T, most int64) (int64, error) {
		s, err := newSpool(most)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		for {
			if _, err := s.Write(block); err != nil {
				return s.size, err
			}
		}
	}
	t.Run("more than the image is", func(t *testing.T) {
		size, err := fill(t, 3<<20)
		if size != 3<<20 || !strings.Contains(err.Error(), "more than the 3 MiB") {
			t.Errorf("%d bytes, error %v", size, err)
		}
	})
	t.Run("until little is left of the filesystem", func(t *testing.T) {
		dir := t.TempDir()
		if err := unix.Mount("none", dir, "tmpfs", 0, "size=200m"); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		t.Setenv("TMPDIR", dir)
		size, err := fill(t, 1<<40)
		if size > 195<<20 || size < 150<<20 || !strings.Contains(err.Error(), "are left in "+dir) {
			t.Errorf("%d MiB, error %v", size>>20, err)
		}
	})
}
