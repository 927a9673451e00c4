package backup

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pkg/sftp"

	"github.com/vsfleet/vsfleet/node/api"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A sent is a file that a host sends.
type sent struct {
	tar.Header
	content string
}

func reg(name, content, id string) sent {
	return sent{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o4750, Uid: 33, PAXRecords: map[string]string{api.IDRecord: id, "SCHILY.xattr.user.x": "y"}}, content}
}

func known(name string) sent {
	return sent{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: name}, ""}
}

// random is a content that does not compress.
func random(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func round(t testing.TB, list ...sent) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	must(t, err)
	w := tar.NewWriter(z)
	for _, f := range list {
		f.Format, f.Size = tar.FormatPAX, int64(len(f.content))
		must(t, w.WriteHeader(&f.Header))
		_, err := io.WriteString(w, f.content)
		must(t, err)
	}
	must(t, w.Close())
	must(t, z.Close())
	return b.Bytes()
}

// places are the kinds of directories: those of this machine, and those that SFTP reaches.
func places(t *testing.T, test func(t *testing.T, dir string, place func() Place)) {
	t.Run("local", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "backups")
		test(t, dir, func() Place { return Local(dir) })
	})
	t.Run("sftp", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "backups")
		test(t, dir, func() Place { return overSFTP(t, dir) })
	})
}

func overSFTP(t *testing.T, dir string) Place {
	t.Helper()
	a, b := net.Pipe()
	server, err := sftp.NewServer(a)
	must(t, err)
	go server.Serve()
	p, err := Remote("vault", dir, b, b, func() error { return b.Close() })
	must(t, err)
	return p
}

func make1(t *testing.T, p Place) *Store {
	t.Helper()
	s, err := Make(t.Context(), p)
	must(t, err)
	return s
}

var taken = time.Date(2026, 2, 1, 3, 15, 0, 0, time.UTC)

// backUp makes a backup of rounds.
func backUp(t *testing.T, s *Store, guest string, at time.Time, rounds ...[]byte) (name string) {
	t.Helper()
	w, err := s.Begin(t.Context(), "lab1", guest)
	must(t, err)
	for i, r := range rounds {
		must(t, w.Round(t.Context(), bytes.NewReader(r)))
		w.Ended(int64(1000 + i))
	}
	name, err = w.Finish(Head{Host: "lab1", Taken: at, Image: "sha256:1", Guest: api.Guest{Name: guest, Context: 120}})
	must(t, err)
	return name
}

// whole returns a backup's files as tar has them: name, mode, owner, content.
func whole(t *testing.T, s *Store, name string) string {
	t.Helper()
	b, err := s.Backup(t.Context(), name)
	must(t, err)
	var archive bytes.Buffer
	must(t, b.Data(t.Context(), &archive))
	z, err := zstd.NewReader(&archive)
	must(t, err)
	defer z.Close()
	var text strings.Builder
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return text.String()
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		if len(content) > 100 {
			content = fmt.Appendf(nil, "%d bytes, %x…", len(content), content[:8])
		}
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, ownRecords) {
				t.Errorf("%s is sent to a host", key)
			}
		}
		fmt.Fprintf(&text, "%s %o %d %s %q %q\n", h.Name, h.Mode, h.Uid, h.PAXRecords["SCHILY.xattr.user.x"], h.Linkname, content)
	}
}

func TestBackups(t *testing.T) {
	places(t, func(t *testing.T, dir string, place func() Place) {
		s := make1(t, place())
		first := []sent{
			{tar.Header{Typeflag: tar.TypeDir, Name: "root/etc/"}, ""},
			reg("root/etc/a", "text", "1 1"), reg("root/etc/b", "text", "2 1"), reg("root/etc/empty", "", "3 1"),
			{tar.Header{Typeflag: tar.TypeLink, Name: "root/etc/c", Linkname: "root/etc/a"}, ""},
			{tar.Header{Typeflag: tar.TypeChar, Name: "root/etc/gone"}, ""},
			{tar.Header{Typeflag: tar.TypeSymlink, Name: "root/etc/link", Linkname: "a"}, ""},
			{tar.Header{Typeflag: tar.TypeReg, Name: "root/etc/owned", PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.metacopy": ""}}, ""},
			reg("root/large", random(1, 3<<20), "5 1"), reg("root/same", random(1, 3<<20), "6 1"),
		}
		one := backUp(t, s, "www", taken, round(t, first...))
		if want := "lab1/www/20260201T031500Z.backup"; one != want {
			t.Errorf("it is %s, want %s", one, want)
		}
		// What the host says is unchanged is taken from the last backup, and what it sends from it.
		second := []sent{first[0], known("root/etc/a"), reg("root/etc/b", "other", "2 2"), known("root/etc/empty"), first[4], first[5], first[6], first[7], known("root/large")}
		w, err := s.Begin(t.Context(), "lab1", "www")
		must(t, err)
		var index bytes.Buffer
		must(t, w.Index(&index))
		if want := "\"etc/a\" 1 1\n\"etc/b\" 2 1\n\"etc/empty\" 3 1\n\"large\" 5 1\n\"same\" 6 1\n" + api.IndexEnd; index.String() != want || w.Since() != 1000 {
			t.Errorf("the index is %q since %d", index.String(), w.Since())
		}
		two := backUp(t, s, "www", taken.Add(time.Hour), round(t, second...), round(t, first[0], known("root/etc/a"), known("root/etc/b"), reg("root/new", "new", "9 9"), known("root/large")))
		for name, want := range map[string]string{
			one: "root/etc/ 0 0  \"\" \"\"\nroot/etc/a 4750 33 y \"\" \"text\"\nroot/etc/b 4750 33 y \"\" \"text\"\nroot/etc/empty 4750 33 y \"\" \"\"\nroot/etc/c 0 0  \"root/etc/a\" \"\"\nroot/etc/gone 0 0  \"\" \"\"\nroot/etc/link 0 0  \"a\" \"\"\nroot/etc/owned 0 0  \"\" \"\"\n",
			two: "root/etc/ 0 0  \"\" \"\"\nroot/etc/a 4750 33 y \"\" \"text\"\nroot/etc/b 4750 33 y \"\" \"other\"\nroot/new 4750 33 y \"\" \"new\"\nroot/large 4750 33 y \"\" \"3145728 bytes",
		} {
			if got := whole(t, s, name); !strings.HasPrefix(got, want) {
				t.Errorf("%s has\n%s, want\n%s", name, got, want)
			}
		}
		b, err := s.Backup(t.Context(), one)
		must(t, err)
		for name, want := range map[string]string{
			"/etc/a": "text", "etc/c": "text", "/../etc/a": "text", "/etc/empty": "",
			"/etc/x": "not among the guest's own files", "/etc": "not among", "/etc/gone": "had removed",
			"/etc/link": `a link to "a"`, "/etc/owned": "changed only the owner",
		} {
			var out bytes.Buffer
			if err := b.File(t.Context(), name, &out); err == nil && out.String() != want || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q, %v", name, out.String(), err)
			}
		}
		all, err := s.All(t.Context(), nil)
		must(t, err)
		if len(all) != 2 || all[0].Added < 3<<20 || all[1].Added > 4096 || all[0].Size != 6<<20+8 || all[0].Files != len(first) || all[1].Guest.Context != 120 {
			t.Errorf("listed are %+v", all)
		}
		if last, err := s.Find("lab1/www"); err != nil || last != two {
			t.Errorf("the last one is %s, %v", last, err)
		}
		c, err := s.Check(t.Context(), true)
		if err != nil || c.Backups != 2 || c.Objects != 4 || c.Unused != 0 || len(c.Damaged) > 0 {
			t.Errorf("check: %+v, %v", c, err)
		}
		if dirs, err := filepath.Glob(dir + "/*"); err != nil || len(dirs) != 5 {
			t.Errorf("in it are %q, %v", dirs, err)
		}
		// Nobody else can read it, and a lock excludes a prune.
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if info, ierr := d.Info(); err == nil && ierr == nil && info.Mode().Perm()&0o077 != 0 && path != dir+"/.." {
				t.Errorf("%s has mode %o", path, info.Mode().Perm())
			}
			return err
		}))
		if _, err := OpenAlone(t.Context(), place()); err == nil || !strings.Contains(err.Error(), "in use by another vsfleet") {
			t.Errorf("pruned while another adds: %v", err)
		}
		must(t, s.Close())

		// The older one goes, with what only it has.
		s, err = OpenAlone(t.Context(), place())
		must(t, err)
		must(t, os.WriteFile(dir+"/.new/left", nil, 0o600))
		for _, dry := range []bool{true, false} {
			p, err := s.Prune(t.Context(), Keep{Last: 1}, nil, dry)
			if err != nil || len(p.Backups) != 1 || p.Backups[0].Name != one || p.Objects != 0 {
				t.Errorf("pruned %+v, %v", p, err)
			}
		}
		if got := whole(t, s, two); !strings.Contains(got, "root/etc/a") {
			t.Errorf("what is left has\n%s", got)
		}
		must(t, os.Remove(filepath.Join(dir, two)))
		if p, err := s.Prune(t.Context(), Keep{Last: 1}, nil, false); err != nil || p.Objects != 4 {
			t.Errorf("pruned %+v, %v", p, err)
		}
		must(t, s.Close())
		if left, err := filepath.Glob(dir + "/.[nlo]*/*/*"); err != nil || len(left) > 0 {
			t.Errorf("left are %q, %v", left, err)
		}
		if left, err := filepath.Glob(dir + "/.[nl]*/*"); err != nil || len(left) > 0 {
			t.Errorf("left are %q, %v", left, err)
		}
	})
}

func TestBackupsRefuse(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/mine", nil, 0o600))
	if _, err := Make(t.Context(), Local(dir)); err == nil || !strings.Contains(err.Error(), "has other files (mine)") {
		t.Errorf("a directory of something else: %v", err)
	}
	if _, err := Open(t.Context(), Local(dir)); err == nil || !strings.Contains(err.Error(), "not a directory of backups") {
		t.Errorf("a directory of something else: %v", err)
	}
	s := make1(t, Local(filepath.Join(t.TempDir(), "b")))
	defer s.Close()
	whole := round(t, reg("root/a", "text", "1"))
	for name, r := range map[string][]byte{
		"a file that was not sent before": round(t, known("root/a")),
		"a name twice":                    round(t, reg("root/a", "1", "1"), reg("root/a", "2", "2")),
		"a name of the host":              round(t, reg("etc/passwd", "1", "1")),
		"half of it":                      whole[:len(whole)/2],
		"without its end":                 whole[:len(whole)-4],
		"nothing":                         {},
	} {
		w, err := s.Begin(t.Context(), "lab1", "www")
		must(t, err)
		if err := w.Round(t.Context(), bytes.NewReader(r)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	// An object's name is never the host's to choose.
	forged := reg("root/a", "text", "1")
	forged.PAXRecords[objectRecord] = strings.Repeat("0", 64)
	name := backUp(t, s, "www", taken, round(t, forged))
	b, err := s.Backup(t.Context(), name)
	must(t, err)
	if b.files.list[0].object == strings.Repeat("0", 64) {
		t.Error("a host has chosen an object")
	}
	w, err := s.Begin(t.Context(), "lab1", "www")
	must(t, err)
	if _, err := w.Finish(Head{Taken: taken}); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a backup was overwritten: %v", err)
	}
}

func TestDamageIsFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "b")
	s := make1(t, Local(dir))
	defer s.Close()
	name := backUp(t, s, "www", taken, round(t, reg("root/a", "text", "1"), reg("root/large", random(1, 2<<20), "2")))
	var files []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.Contains(path, ".locks") && filepath.Base(path) != mark {
			files = append(files, path)
		}
		return err
	}))
	if len(files) != 3 {
		t.Fatalf("there are %q", files)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		must(t, err)
		step := 1 + len(content)/50
		for i := 0; i < len(content); i += step {
			for what, bad := range map[string][]byte{"changed": bytes.Clone(content), "cut off": content[:i]} {
				if what == "changed" {
					bad[i] ^= 1
				}
				must(t, os.WriteFile(file, bad, 0o600))
				b, err := s.Backup(t.Context(), name)
				if err == nil {
					err = b.Data(t.Context(), io.Discard)
				}
				c, cerr := s.Check(t.Context(), true)
				if cerr != nil || (err != nil) != (len(c.Damaged) > 0) {
					t.Fatalf("%s, %s at %d: %v, and check has %+v, %v", filepath.Base(file), what, i, err, c, cerr)
				}
				if err == nil && !strings.HasSuffix(filepath.Dir(filepath.Dir(file)), objectsDir) {
					t.Fatalf("%s, %s at %d: nobody saw it", filepath.Base(file), what, i)
				}
			}
		}
		must(t, os.Remove(file))
		if c, err := s.Check(t.Context(), false); !strings.HasSuffix(file, suffix) && (err != nil || len(c.Damaged) != 1) {
			t.Errorf("%s is missing: %+v, %v", file, c, err)
		}
		must(t, os.WriteFile(file, content, 0o600))
	}
}

func TestKeep(t *testing.T) {
	day := func(m time.Month, d, h int) Listed {
		return Listed{Head: Head{Taken: time.Date(2026, m, d, h, 0, 0, 0, time.Local)}}
	}
	list := []Listed{day(1, 5, 1), day(1, 31, 1), day(2, 1, 1), day(2, 1, 5), day(2, 2, 1), {Err: errDamaged}, day(2, 3, 1), day(2, 3, 2)}
	for name, row := range map[string]struct {
		keep Keep
		want string
	}{
		"the last two":             {Keep{Last: 2}, "-----+++"},
		"one for each of two days": {Keep{Daily: 2}, "----++-+"},
		"one for each month":       {Keep{Monthly: 5}, "-+---+-+"},
		"weeks begin on Mondays":   {Keep{Weekly: 2}, "---+-+-+"},
		"all of these":             {Keep{Last: 1, Daily: 1, Monthly: 2}, "-+---+-+"},
	} {
		got := ""
		for _, stays := range row.keep.choose(list) {
			got += map[bool]string{true: "+", false: "-"}[stays]
		}
		if got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}

func FuzzList(f *testing.F) {
	var b bytes.Buffer
	one := &file{Header: &tar.Header{Typeflag: tar.TypeReg, Name: "root/a", Format: tar.FormatPAX}, object: strings.Repeat("0", 64), size: 3}
	must(f, writeList([]*file{one}, &b))
	f.Add(b.Bytes())
	f.Add(round(f, reg("root/a", "text", "1")))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parse(t.Context(), bytes.NewReader(data))
		if err == nil {
			_ = writeList(all.list, io.Discard)
		}
		_, _ = readHead(bytes.NewReader(data), int64(len(data)))
	})
}

// A machine that slept while it made a backup, or removed some, may find that another vsfleet has
// used the directory: neither goes on.
func TestALockThatWasNotRefreshedEndsItsUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "b")
	slept := func(s *Store) {
		s.lock.mu.Lock()
		s.lock.refreshed = time.Now().Add(-time.Hour)
		s.lock.mu.Unlock()
		must(t, os.Chtimes(filepath.Join(dir, s.lock.name), time.Time{}, time.Now().Add(-time.Hour)))
	}
	s := make1(t, Local(dir))
	first := backUp(t, s, "www", taken, round(t, reg("root/one", "1", "9 9")))
	w, err := s.Begin(t.Context(), "lab1", "db")
	must(t, err)
	must(t, w.Round(t.Context(), bytes.NewReader(round(t, reg("root/two", "2", "9 9")))))
	w.Ended(1)
	slept(s)
	alone, err := OpenAlone(t.Context(), Local(dir))
	must(t, err)
	if p, err := alone.Prune(t.Context(), Keep{Last: 1}, nil, false); err != nil || p.Objects != 1 {
		t.Fatalf("the other one removes %+v, %v", p, err)
	}
	if _, err := w.Finish(Head{Host: "lab1", Taken: taken, Guest: api.Guest{Name: "db"}}); err == nil || !strings.Contains(err.Error(), "run the command again") {
		t.Errorf("a backup whose contents are gone: %v", err)
	}
	must(t, s.Close())
	slept(alone)
	if _, err := alone.Prune(t.Context(), Keep{}, nil, false); err == nil || !strings.Contains(err.Error(), "run the command again") {
		t.Errorf("it removes what another one may have: %v", err)
	}
	must(t, alone.Close())
	s, err = Open(t.Context(), Local(dir))
	must(t, err)
	if c, err := s.Check(t.Context(), true); err != nil || len(c.Damaged) > 0 || c.Backups != 1 {
		t.Errorf("%+v, %v, want %s whole", c, err, first)
	}
	must(t, s.Close())
}
