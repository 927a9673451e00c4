package node

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// prepared hashifies guests while they run, and ends them.
func (s *shared) prepared(names ...string) {
	s.t.Helper()
	defer func(was time.Duration) { settled = was }(settled)
	settled = 20 * time.Millisecond
	for _, name := range names {
		must(s.t, s.Guests.Start(s.t.Context(), name, guest.Options{}))
	}
	time.Sleep(2 * settled) // the time is what is waited for
	done, err := s.Hashify(s.t.Context(), api.Hashify{Guests: names})
	must(s.t, err)
	for _, g := range done.Guests {
		if g.Problem != "" || !g.Later || g.Files == 0 {
			s.t.Errorf("of a running guest: %+v", g)
		}
		_, err := s.Guests.Stop(s.t.Context(), g.Name)
		must(s.t, err)
	}
}

// next does what the next start does with files.
func (s *shared) next(name string) {
	s.t.Helper()
	_, err := s.Guests.ReadFile(s.t.Context(), name, "/etc/hostname", 1<<20)
	must(s.t, err)
}

// A guest that runs gives its copies up at its next start, but for those that it has touched
// since, and sees the same files.
func TestHashifyOfRunningGuests(t *testing.T) {
	s := newShared(t)
	names := []string{"later-a", "later-bb", "later-ccc"}
	for i, name := range names {
		s.guest(name, 320+i)
		s.change(name)
	}
	before := s.own("later-a")
	s.prepared(names...)
	for _, name := range names {
		if own := s.own(name); len(own) != len(before) {
			t.Errorf("%s has given up files while it ran: %q", name, own)
		}
	}
	users := func(id string) ([]string, error) { return s.imageUsers(t.Context(), id) }
	_, err := s.Images.Collect(t.Context(), true, false, users) // what is prepared is in use
	must(t, err)

	// What a guest does in between.
	s.root("later-a", func(dir string) {
		f, err := os.OpenFile(dir+"/usr/bin/p1", os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("mine"), 100)
		must(t, errors.Join(err, f.Close()))
		past := time.Unix(1_700_000_000, 123_456_789)
		must(t, os.Chtimes(dir+"/usr/bin/p1", past, past)) // as if it had not
		must(t, os.Remove(dir+"/usr/bin/p2"))
		must(t, os.Rename(dir+"/usr/bin/p3", dir+"/usr/bin/p3.moved"))
		must(t, os.Chmod(dir+"/usr/bin/p4", 0o700))
		put(t, dir+"/usr/bin/p5", content(1005, size)) // the same content
		must(t, os.Link(dir+"/usr/bin/p6", dir+"/usr/bin/p6.too"))
		must(t, os.Rename(dir+"/usr/bin/p7", dir+"/usr/bin/swap"))
		must(t, os.Rename(dir+"/usr/bin/p8", dir+"/usr/bin/p7"))
		must(t, os.Rename(dir+"/usr/bin/swap", dir+"/usr/bin/p8"))
		must(t, os.RemoveAll(dir+"/usr/lib/package")) // which nothing below has
		must(t, os.Rename(dir+"/usr/lib/hidden", dir+"/usr/lib/shown"))
		must(t, os.Mkdir(dir+"/usr/lib/hidden", 0o700))
	})
	s.root("later-bb", func(dir string) {
		must(t, os.RemoveAll(dir+"/usr/lib/package/deep"))
		must(t, os.Rename(dir+"/usr/lib/package", dir+"/usr/lib/away"))
		must(t, os.Rename(dir+"/usr/bin", dir+"/usr/bin.new"))
		must(t, os.Rename(dir+"/usr/bin.new", dir+"/usr/bin"))
	})
	for _, name := range names {
		was := s.seen(name, true)
		s.next(name)
		s.same("at its next start", name, was)
		own := s.own(name)
		t.Logf("%s keeps %d of %d files", name, len(own), len(before))
		switch {
		case name == "later-a" && (!slices.Contains(own, "usr/bin/p1") || slices.Contains(own, "usr/bin/p10")):
			t.Errorf("%s keeps %q", name, own)
		case name == "later-ccc" && len(own) != 13:
			t.Errorf("%s keeps %q", name, own)
		}
		must(t, s.Guests.Start(t.Context(), name, guest.Options{}))
		_, err := s.Guests.Stop(t.Context(), name)
		must(t, err)
		s.same("after that", name, was)
	}

	// What cannot be done then is not done: the guest starts.
	s.guest("later-last", 330)
	s.change("later-last")
	s.prepared("later-last")
	was, have := s.seen("later-last", true), len(s.own("later-last"))
	derive := s.Guests.Derive
	s.Guests.Derive = nil
	must(t, os.WriteFile(s.dir+"/data/later-last/.hashify-next", []byte("{"), 0o600))
	s.next("later-last")
	s.Guests.Derive = derive
	s.same("with nothing prepared", "later-last", was)
	s.next("later-last")
	if n := len(s.own("later-last")); n != have {
		t.Errorf("it has %d files, and had %d", n, have)
	}
	for range 2 {
		_, err := s.Images.Collect(t.Context(), true, false, users)
		must(t, err)
	}
	for _, name := range names {
		if c, err := s.Images.Check(t.Context(), users); err != nil || len(c.Damaged) > 0 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// A start that is killed while it takes what was prepared leaves a guest that sees what it saw.
func TestANextStartThatIsKilled(t *testing.T) {
	s := newShared(t)
	before, files := map[string]string{}, map[string]string{}
	var names []string
	for i := range 8 {
		name := fmt.Sprintf("later%d", i)
		names = append(names, name)
		s.guest(name, 340+i)
		s.change(name)
	}
	s.prepared(names...)
	for _, name := range names {
		s.root(name, func(dir string) { must(t, os.RemoveAll(dir+"/usr/lib/package")) })
		before[name], files[name] = s.seen(name, true), s.seen(name, false)
	}
	for i := range 12 {
		if !s.killedAfter(asNext, time.Duration(20+i*20)*time.Millisecond) {
			break
		}
		for _, name := range names { // directories get their times back by the next start
			if now := s.seen(name, false); now != files[name] {
				t.Errorf("killed, try %d: %s sees other files:\n%s", i, name, missingLines(files[name], now))
			}
		}
	}
	for _, name := range names {
		s.next(name)
		s.same("in the end", name, before[name])
		if own := s.own(name); len(own) > 13 {
			t.Errorf("%s keeps %q", name, own)
		}
	}
}
