package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/images"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// asHashify has the test binary hashify the host in a directory.
const asHashify = "VSNODE_TEST_HASHIFY"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func storeIn(dir string) *Host {
	h := hostIn(dir)
	var err error
	if h.Images, err = images.Open(dir + "/data/.images"); err != nil {
		panic(err)
	}
	h.Guests.Tree, h.Guests.Derive, h.Guests.Rederive, h.Guests.Own = h.Images.Tree, h.Images.Derive, h.Images.Rederive, h.Images.Own
	h.Images.UsedIn = h.usersIn
	return h
}

func beHashify(dir string) error {
	_, err := storeIn(dir).Hashify(context.Background(), api.Hashify{})
	return err
}

// asNext has the test binary do what the next start of each guest of a host does.
const asNext = "VSNODE_TEST_NEXT"

func beNext(dir string) error {
	h := storeIn(dir)
	names, err := h.Guests.Names()
	for _, name := range names {
		if err == nil {
			_, err = h.Guests.ReadFile(context.Background(), name, "/etc/conf", 1<<20)
		}
	}
	return err
}

// A shared host has an image, and guests of it.
type shared struct {
	*Host
	t     *testing.T
	dir   string
	image string
}

func content(seed, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path+".new", b, 0o644))
	must(t, os.Chtimes(path+".new", time.Unix(1_700_000_000, 123_456_789), time.Unix(1_700_000_000, 123_456_789)))
	must(t, os.Rename(path+".new", path))
}

const someFiles, size = 30, 50_000

func newShared(t *testing.T) *shared {
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-test-hashify-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return sharedIn(t, dir)
}

func sharedIn(t *testing.T, dir string) *shared {
	s := &shared{Host: storeIn(dir), t: t, dir: dir}
	s.image = s.build("base", 0)
	return s
}

// build makes an image; version changes some files.
func (s *shared) build(name string, version int) string {
	s.t.Helper()
	tree := filepath.Join(s.dir, name)
	for i := range someFiles {
		put(s.t, fmt.Sprintf("%s/usr/bin/p%d", tree, i), content(i+version*(i%3), size))
	}
	for _, file := range []string{"usr/lib/hidden/a", "usr/lib/hidden/sub/b", "usr/lib/moved/a", "usr/lib/diverted", "usr/lib/removed", "usr/lib/owned", "usr/lib/dir/a", "etc/conf"} {
		put(s.t, filepath.Join(tree, file), content(100+len(file)+version, size))
	}
	if version > 0 {
		put(s.t, tree+"/usr/lib/hidden/later", content(7, size))
		must(s.t, os.RemoveAll(tree+"/usr/lib/dir"))
	}
	busybox, err := os.ReadFile("/bin/busybox")
	must(s.t, err)
	put(s.t, tree+"/bin/busybox", busybox)
	must(s.t, os.Chmod(tree+"/bin/busybox", 0o755))
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp"} {
		must(s.t, os.MkdirAll(filepath.Join(tree, dir), 0o755))
	}
	put(s.t, tree+"/usr/lib/linked", content(3000, size))
	must(s.t, os.Link(tree+"/usr/lib/linked", tree+"/usr/lib/linked2"))
	must(s.t, os.Link(tree+"/usr/lib/linked", tree+"/usr/lib/linked3"))
	img, _, err := s.Images.Build(s.t.Context(), api.ImageSpec{Name: name, Method: "template", Args: []string{"-t", tree}}, nil)
	must(s.t, err)
	return img.ID
}

func (s *shared) guest(name string, context int) {
	s.t.Helper()
	must(s.t, s.Guests.Create(s.t.Context(), api.Guest{Name: name, Context: context, Image: s.image, Network: api.Network{Mode: api.ModeNAT},
		Init: api.Init{Style: "command", Command: []string{"/bin/busybox", "sleep", "1000"}}}))
}

// root calls f with a guest's root.
func (s *shared) root(name string, f func(dir string)) {
	s.t.Helper()
	upper, err := s.Guests.Root(name)
	must(s.t, err)
	lower, err := os.ReadFile(filepath.Join(s.Guests.Dir(name), "image"))
	must(s.t, err)
	value := make([]byte, 512)
	if n, err := unix.Getxattr(upper, "trusted.vsfleet.own", value); err == nil {
		lower = value[:n]
	}
	c, err := s.Guests.Read(name)
	must(s.t, err)
	image, err := s.Images.Tree(s.t.Context(), c.TrustDomain, strings.Fields(string(lower))[0])
	must(s.t, err)
	work := filepath.Join(filepath.Dir(upper), "work")
	must(s.t, os.MkdirAll(work, 0o700))
	m, err := procctx.Root{Image: image, Upper: upper, Work: work}.Open(s.t.Context())
	must(s.t, err)
	defer m.Close()
	f(fmt.Sprintf("/proc/self/fd/%d", m.Fd()))
}

// change does what an upgrade by hand does, and worse.
func (s *shared) change(name string) {
	s.t.Helper()
	t := s.t
	s.root(name, func(dir string) {
		for i := range someFiles / 2 {
			put(t, fmt.Sprintf("%s/usr/bin/p%d", dir, i), content(1000+i, size))
		}
		must(t, os.Chmod(dir+"/usr/bin/p1", 0o750|fs.ModeSetuid))
		must(t, os.Chown(dir+"/usr/bin/p2", 33, 44))
		must(t, unix.Setxattr(dir+"/usr/bin/p3", "user.note", []byte("mine"), 0))
		for i := range 10 {
			put(t, fmt.Sprintf("%s/usr/lib/package/deep/f%d", dir, i), content(2000+i, size))
		}
		must(t, os.RemoveAll(dir+"/usr/lib/hidden"))
		put(t, dir+"/usr/lib/hidden/new", content(3000, size)) // as the image has it elsewhere
		must(t, os.Rename(dir+"/usr/lib/moved", dir+"/usr/lib/there"))
		put(t, dir+"/usr/lib/moved/a", content(3001, size))
		must(t, os.Chmod(dir+"/usr/lib/diverted", 0o600))
		must(t, os.Rename(dir+"/usr/lib/diverted", dir+"/usr/lib/diverted.dist"))
		put(t, dir+"/usr/lib/diverted", content(3002, size))
		must(t, os.Remove(dir+"/usr/lib/removed"))
		must(t, os.Chown(dir+"/usr/lib/owned", 7, 7))
		must(t, os.RemoveAll(dir+"/usr/lib/dir"))
		put(t, dir+"/usr/lib/dir", content(3003, size)) // a file in the place of a directory
		put(t, dir+"/usr/lib/linked", content(3004, size))
		put(t, dir+"/usr/lib/two", content(3005, size))
		must(t, os.Link(dir+"/usr/lib/two", dir+"/usr/lib/names"))
		sparse, err := os.Create(dir + "/usr/lib/sparse")
		must(t, err)
		must(t, sparse.Truncate(1<<20))
		must(t, sparse.Close())
		put(t, dir+"/etc/conf", content(3006, size))
		put(t, dir+"/usr/lib/unique", content(4000+len(name)+int(name[0]), size-len(name)))
		put(t, dir+"/usr/lib/tiny", []byte("tiny\n"))
	})
}

// seen describes all that is seen below a directory.
func (s *shared) seen(name string, dirTimes bool) string {
	s.t.Helper()
	var b strings.Builder
	s.root(name, func(dir string) {
		must(s.t, filepath.WalkDir(dir+"/.", func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			rel, _ := filepath.Rel(dir, path)
			fmt.Fprintf(&b, "%s %o %d:%d", rel, st.Mode, st.Uid, st.Gid)
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				note := make([]byte, 10)
				n, _ := unix.Getxattr(path, "user.note", note)
				if strings.HasPrefix(rel, "usr/lib/linked") { // overlayfs counts a name of the image that the guest replaced; a new description does not
					st.Nlink = 0
				}
				fmt.Fprintf(&b, " %d %d %x %s", st.Size, st.Nlink, sha256.Sum256(data), note[:max(n, 0)])
			}
			if dirTimes && !strings.HasSuffix(rel, "sparse") {
				fmt.Fprintf(&b, " %d", st.Mtim.Nano())
			}
			b.WriteByte('\n')
			return nil
		}))
	})
	return b.String()
}

func (s *shared) same(what, name, before string) {
	s.t.Helper()
	if now := s.seen(name, true); now != before {
		s.t.Errorf("%s: %s sees other files:\n%s", what, name, missingLines(before, now))
	}
}

func missingLines(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	var lines []string
	for _, l := range x {
		if !slices.Contains(y, l) {
			lines = append(lines, "- "+l)
		}
	}
	for _, l := range y {
		if !slices.Contains(x, l) {
			lines = append(lines, "+ "+l)
		}
	}
	return strings.Join(lines, "\n")
}

// own returns the regular files that a guest has itself.
func (s *shared) own(name string) (list []string) {
	s.t.Helper()
	upper, err := s.Guests.Root(name)
	must(s.t, err)
	must(s.t, filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(upper, path)
			list = append(list, rel)
		}
		return err
	}))
	return list
}

// killedAfter runs the test binary as env says, on the host in s.dir, and reports whether it was
// killed before it had ended.
func (s *shared) killedAfter(env string, after time.Duration) bool {
	s.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env+"="+s.dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	must(s.t, cmd.Start())
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	if stderr.Len() > 0 {
		s.t.Fatalf("%v: %s", err, strings.TrimSpace(stderr.String()))
	}
	return err != nil
}
