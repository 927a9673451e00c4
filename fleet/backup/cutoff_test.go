package backup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// failing is a place whose n-th change fails, as does everything after it.
type failing struct {
	Place
	left *int
}

var errKilled = errors.New("killed")

func (f failing) step() error {
	if *f.left--; *f.left < 0 {
		return errKilled
	}
	return nil
}

func (f failing) Create(name string) (File, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	return f.Place.Create(name)
}

func (f failing) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Place.Rename(from, to)
}

func (f failing) Remove(name string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Place.Remove(name)
}

// Whenever a backup or a prune is cut off, what is there is whole, and the next one ends well.
func TestBackupsThatAreCutOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "b")
	check := func(what string) {
		t.Helper()
		locks, err := filepath.Glob(dir + "/.locks/*")
		must(t, err)
		for _, l := range locks { // of those that were killed, half an hour later
			must(t, os.Chtimes(l, time.Time{}, time.Now().Add(-time.Hour)))
		}
		s, err := Open(t.Context(), Local(dir))
		must(t, err)
		c, err := s.Check(t.Context(), true)
		if err != nil || len(c.Damaged) > 0 {
			t.Errorf("%s: %+v, %v", what, c, err)
		}
		must(t, s.Close())
	}
	s := make1(t, Local(dir))
	backUp(t, s, "www", taken, round(t, reg("root/a", "first", "1")))
	must(t, s.Close())
	for n := range 25 {
		left := n
		s, err := Make(t.Context(), failing{Local(dir), &left})
		if err == nil {
			func() {
				w, err := s.Begin(t.Context(), "lab1", "www")
				if err == nil {
					err = w.Round(t.Context(), bytes.NewReader(round(t, reg("root/a", "first", "1"), reg("root/b", random(uint64(n), 1000), "2"), reg("root/large", random(uint64(n), 2<<20), "3"))))
				}
				if err == nil {
					_, _ = w.Finish(Head{Host: "lab1", Taken: taken.Add(time.Duration(n+1) * time.Hour), Guest: api.Guest{Name: "www"}})
				}
			}()
			s.lock.stop()
		}
		check(fmt.Sprintf("a backup, cut off after %d steps", n))
		left = n
		if s, err := OpenAlone(t.Context(), failing{Local(dir), &left}); err == nil {
			_, _ = s.Prune(t.Context(), Keep{Last: 2}, nil, false)
			s.lock.stop()
		}
		check(fmt.Sprintf("a prune, cut off after %d steps", n))
	}
	s, err := OpenAlone(t.Context(), Local(dir))
	must(t, err)
	_, err = s.Prune(t.Context(), Keep{Last: 1}, nil, false)
	must(t, err)
	must(t, s.Close())
	c, err := func() (Checked, error) {
		s, err := Open(t.Context(), Local(dir))
		must(t, err)
		return s.Check(t.Context(), true)
	}()
	if err != nil || c.Unused != 0 || c.Backups != 1 {
		t.Errorf("in the end: %+v, %v", c, err)
	}
}
