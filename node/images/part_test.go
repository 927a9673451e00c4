package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images/objects"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// longer returns a store with two versions of an image whose difference has many parts.
func longer(t testing.TB) (source *Store, one, two string) {
	source = open(t)
	first, second := map[string]string{}, map[string]string{}
	for i := range 12 {
		name := fmt.Sprintf("lib/file%c", 'a'+i)
		first[name] = noise(uint64(i), 1<<20)
		second[name] = first[name][:1000] + noise(uint64(100+i), 20<<10) + first[name][1000:]
	}
	one = made(t, source, archive(t, "one", first)).ID
	return source, one, made(t, source, archive(t, "two", second)).ID
}

// rest has a target take what it lacks of an image over a line that breaks off after line
// bytes, and returns how many bytes it would have taken.
func rest(t testing.TB, source, target *Store, id, base string, line int) (int, error) {
	t.Helper()
	arrived, err := target.Arrived(id, base)
	must(t, err)
	if !arrived.Parts {
		t.Fatal("it takes no parts")
	}
	var b bytes.Buffer
	must(t, source.ExportDifference(t.Context(), id, base, arrived.Contents, &b))
	n := b.Len()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var in io.Reader = &b
	if line < n {
		in = io.MultiReader(io.LimitReader(&b, int64(line)), breaks{cancel})
	}
	_, _, err = target.Import(ctx, in, id)
	return n, err
}

func TestAnImageContinuesWhereItBrokeOff(t *testing.T) {
	source, one, two := longer(t)
	for _, row := range []struct{ name, base string }{{"a difference", one}, {"a whole image", ""}} {
		t.Run(row.name, func(t *testing.T) {
			target := open(t)
			carry(t, source, target, one, "")
			whole, err := rest(t, source, open(t), two, "", 0)
			if row.base != "" {
				whole, err = rest(t, source, target, two, row.base, 0)
			} else {
				must(t, target.Remove(t.Context(), one, nobody))
			}
			if err == nil {
				t.Fatal("nothing was enough")
			}
			// One part is at most a third of it.
			line, left := whole*2/5, whole
			for tries := 0; ; tries++ {
				n, err := rest(t, source, target, two, row.base, line)
				if n > left {
					t.Errorf("%d bytes are sent where %d were left", n, left)
				}
				checked(t, target)
				if err == nil {
					if tries < 2 || tries > 6 {
						t.Errorf("it took %d tries", tries+1)
					}
					break
				}
				if tries > 10 {
					t.Fatal(err)
				}
				left = n
			}
			if !maps.Equal(contents(t, target, two), contents(t, source, two)) {
				t.Error("another content")
			}
			if list, _ := filepath.Glob(filepath.Join(target.dir, partPrefix+"*")); len(list) > 0 {
				t.Errorf("left: %v", list)
			}
			checked(t, target)
		})
	}
}

// A vsnode that was killed leaves what has arrived as well.
func TestAnImageContinuesAfterAKill(t *testing.T) {
	source, one, two := longer(t)
	for _, base := range []string{one, ""} {
		target := open(t)
		carry(t, source, target, one, "")
		var b bytes.Buffer
		must(t, source.ExportDifference(t.Context(), two, base, 0, &b))
		stream := filepath.Join(t.TempDir(), "stream")
		must(t, os.WriteFile(stream, b.Bytes(), 0o600))
		killed := true
		for after := time.Duration(0); killed; after = 2*after + 10*time.Millisecond {
			killed = killAfter(t, maker(target, api.ImageSpec{}, ""), "import "+two+" "+stream, after)
			n, err := rest(t, source, target, two, base, 0)
			if killed && err == nil || n > b.Len() {
				t.Errorf("%d bytes of %d are left (%v)", n, b.Len(), err)
			}
			if killed {
				_, err = rest(t, source, target, two, base, 1<<30)
				must(t, err)
				checked(t, target)
				must(t, target.Remove(t.Context(), two, nobody))
			}
		}
		checked(t, target)
	}
}

// A vsnode that was killed before the image got its name may have all contents.
func TestAnImageOfWhichAllHasArrivedContinues(t *testing.T) {
	source, one, two := longer(t)
	for _, base := range []string{one, ""} {
		target := open(t)
		carry(t, source, target, one, "")
		if _, err := rest(t, source, target, two, base, 200<<10); err == nil {
			t.Fatal("it was enough")
		}
		must(t, source.manifest(two, func(e *tree.Entry) {
			if e.Object() == "" {
				return
			}
			b, err := os.ReadFile(filepath.Join(source.objects.Dir(), objects.Place(e.Object())))
			must(t, err)
			to := filepath.Join(target.partPath(two), partContents, e.Object())
			_ = os.Remove(to) // it may be a link of the base's
			must(t, os.WriteFile(to, b, 0o400))
		}))
		if n, err := rest(t, source, target, two, base, 1<<30); err != nil || n > 4<<10 {
			t.Errorf("%d bytes are sent for nothing (%v)", n, err)
		}
		checked(t, target)
	}
}

// A stream that breaks off in its manifest takes nothing away.
func TestWhatArrivedStaysWhenTheNextStreamBreaksOffAtOnce(t *testing.T) {
	source, one, two := longer(t)
	target := open(t)
	carry(t, source, target, one, "")
	_, err := rest(t, source, target, two, one, 200<<10)
	before, aerr := target.Arrived(two, one)
	must(t, aerr)
	if err == nil || before.Contents == 0 {
		t.Fatalf("%d contents have arrived (%v)", before.Contents, err)
	}
	whole := sent(t, source, two, one)
	head := bytes.Index(whole, []byte("\n0\n")) + 3
	for _, at := range []int{20, head + 10, head + 100} {
		if _, _, err := target.Import(t.Context(), bytes.NewReader(whole[:at]), two); err == nil {
			t.Fatal("it was enough")
		}
	}
	if after, err := target.Arrived(two, one); err != nil || after != before {
		t.Errorf("%d contents are left of %d (%v)", after.Contents, before.Contents, err)
	}
}

func TestWhatArrivedAndIsDamagedComesAgain(t *testing.T) {
	source, one, two := longer(t)
	target := open(t)
	carry(t, source, target, one, "")
	whole, _ := rest(t, source, target, two, one, 1)
	_, err := rest(t, source, target, two, one, whole*4/5)
	if err == nil {
		t.Fatal("it was enough")
	}
	before, err := target.Arrived(two, one)
	must(t, err)
	list, _ := filepath.Glob(filepath.Join(target.partPath(two), partContents, "*"))
	for _, path := range list {
		st, err := os.Lstat(path)
		must(t, err)
		b, err := os.ReadFile(path)
		must(t, err)
		if len(b) == 0 {
			continue // it was about to arrive
		}
		b[len(b)/2]++
		must(t, os.Remove(path)) // it may be a link of the base's
		must(t, os.WriteFile(path, b, st.Mode()))
	}
	// The controller believes the sizes; vsnode does not.
	if _, err := rest(t, source, target, two, one, 1<<30); err == nil || before.Contents == 0 {
		t.Errorf("%d damaged contents: %v", before.Contents, err)
	}
	if n, err := rest(t, source, target, two, one, 1<<30); err != nil || n != whole {
		t.Errorf("%d bytes of %d: %v", n, whole, err)
	}
	checked(t, target)
}

func TestWhatArrivedStaysForADay(t *testing.T) {
	source, one, two := longer(t)
	half := func(t *testing.T) *Store {
		target := open(t)
		carry(t, source, target, one, "")
		if _, err := rest(t, source, target, two, one, 200<<10); err == nil {
			t.Fatal("it was enough")
		}
		return target
	}
	for _, row := range []struct {
		name  string
		then  func(s *Store) error
		stays bool
	}{
		{"image gc", func(s *Store) error { _, err := s.Collect(t.Context(), false, false, nobody); return err }, true},
		{"image gc --all", func(s *Store) error { _, err := s.Collect(t.Context(), true, false, nobody); return err }, false},
		{"a call after 23 hours", func(s *Store) error { return older(s, two, 23*time.Hour) }, true},
		{"a call after 25 hours", func(s *Store) error { return older(s, two, 25*time.Hour) }, false},
		{"a call after the clock was set back", func(s *Store) error { return older(s, two, -25*time.Hour) }, false},
		{"the image came in another way", func(s *Store) error {
			var b bytes.Buffer
			if err := source.Export(t.Context(), two, &b); err != nil {
				return err
			}
			if _, _, err := s.Import(t.Context(), &b, two); err != nil {
				return err
			}
			return s.sweep(t.Context())
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			target := half(t)
			must(t, row.then(target))
			if _, err := os.Stat(target.partPath(two)); (err == nil) != row.stays {
				t.Errorf("stays: %v (%v)", err == nil, err)
			}
			_, err := rest(t, source, target, two, "", 1<<30)
			must(t, err)
			checked(t, target)
		})
	}
}

func older(s *Store, id string, age time.Duration) error {
	at := time.Now().Add(-age)
	if err := os.Chtimes(filepath.Join(s.partPath(id), partContents), at, at); err != nil {
		return err
	}
	return s.prepare(context.Background())
}
