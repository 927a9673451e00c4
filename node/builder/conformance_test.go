package builder_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/buildmethod"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/images"
	"github.com/vsfleet/vsfleet/node/images/tree"
)

// The conformance suite: what holds of every method. Each makes an image of the same
// system, which lies in a directory as its fixture wants it, by a vsnode of its own: the
// test's binary, run again.

// A fixture brings a method's input.
type fixture struct {
	// spec returns arguments by which the method copies the system at source.
	spec func(t *testing.T, source string) api.ImageSpec
	// inRoot: the method copies the root of the host, which source has to be.
	inRoot bool
	// drifts: two images of one input differ.
	drifts bool
}

var fixtures = map[string]fixture{
	"debootstrap": {spec: func(t *testing.T, source string) api.ImageSpec {
		tool(t, "mmdebstrap", `for dir; do :; done; echo "I: copying"; cp -a `+source+`/. $dir; mkdir -p $dir/var/lib/dpkg; echo >$dir/var/lib/dpkg/status`)
		return api.ImageSpec{Method: "debootstrap", Args: []string{"-d", "bookworm"}}
	}, drifts: true},
	"skeleton": {spec: func(t *testing.T, source string) api.ImageSpec {
		return api.ImageSpec{Method: "skeleton", Args: []string{"--", "cp", "-a", source + "/.", "."}}
	}},
	"template": {spec: func(t *testing.T, source string) api.ImageSpec {
		archive := filepath.Join(t.TempDir(), "box.tar")
		out, err := exec.Command("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", source, "-cf", archive, ".").CombinedOutput()
		if err != nil {
			t.Fatalf("tar: %s", out)
		}
		return api.ImageSpec{Method: "template", Args: []string{"-t", archive}}
	}},
	"template of directories": {spec: func(t *testing.T, source string) api.ImageSpec {
		over := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(over, "srv"), 0o755))
		return api.ImageSpec{Method: "template", Args: []string{"-t", source, "-t", over}}
	}},
	"rsync": {spec: func(t *testing.T, source string) api.ImageSpec {
		return api.ImageSpec{Method: "rsync", Args: []string{"-s", source}}
	}},
	"rsync from another machine": {spec: func(t *testing.T, source string) api.ImageSpec {
		ssh := filepath.Join(t.TempDir(), "ssh")
		must(t, os.WriteFile(ssh, []byte("#!/bin/sh\n[ \"$1\" = -l ] && shift 2; [ \"$1\" = old.example.net ] && shift && exec \"$@\"\n"), 0o755))
		return api.ImageSpec{Method: "rsync", Args: []string{"--source", "root@old.example.net:" + source, "--", "--rsh=" + ssh}}
	}},
	"clone": {spec: func(t *testing.T, source string) api.ImageSpec {
		return api.ImageSpec{Method: "clone", Args: []string{"-s", "www"}}
	}},
	"clone of a directory": {spec: func(t *testing.T, source string) api.ImageSpec {
		return api.ImageSpec{Method: "clone", Args: []string{"-s", source}}
	}},
	"host": {spec: func(t *testing.T, source string) api.ImageSpec {
		return api.ImageSpec{Method: "host"}
	}, inRoot: true, drifts: true}, // of the time of directories whose content is left out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tool puts a program into the path of the next vsnode that is this shell script.
func tool(t *testing.T, name, script string) {
	t.Helper()
	bin := t.TempDir()
	must(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

// plant makes a small system: with systemd, things of a host's, and all kinds of files.
func plant(t *testing.T) string {
	t.Helper()
	source := t.TempDir()
	must(t, os.Chmod(source, 0o755))
	at := func(name string) string { return filepath.Join(source, name) }
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "usr/bin", "srv", "var/lib/vservers"} {
		must(t, os.MkdirAll(at(dir), 0o755))
	}
	for name, content := range map[string]string{
		"usr/lib/systemd/systemd": "x", "etc/machine-id": "0123456789abcdef\n", "etc/hostname": "old\n", "etc/fstab": "/dev/sda1 / ext4 defaults 0 1\n",
		"etc/ssh/ssh_host_rsa_key": "secret", "etc/passwd": "root:x:0:0::/:/bin/sh\n", "usr/bin/ping": "ping", "usr/bin/su": "su",
		"srv/between": strings.Repeat("0123456789abcdef", 1<<17), "srv/after": "x",
	} {
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), []byte(content), 0o644))
	}
	must(t, os.Link(at("usr/bin/su"), at("usr/bin/sudo")))
	must(t, os.Symlink("usr/bin", at("bin")))
	must(t, os.Symlink("../../../../etc/shadow", at("srv/out")))
	must(t, os.Chown(at("srv/after"), 33, 65533))
	must(t, os.Chmod(at("usr/bin/su"), 0o755|fs.ModeSetuid))
	must(t, unix.Mkfifo(at("srv/fifo"), 0o600))
	must(t, unix.Setxattr(at("usr/bin/ping"), "security.capability", []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
	must(t, unix.Setxattr(at("srv"), "user.note", []byte("kept"), 0))
	must(t, filepath.WalkDir(source, func(name string, _ fs.DirEntry, err error) error {
		old := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, old, unix.AT_SYMLINK_NOFOLLOW)
	}))
	return source
}

// A call is a build by a vsnode of its own.
type call struct {
	Store, Source string
	Root          string // of the host; empty: the real one
	Small         bool   // the store is on a disk of MiB
	MiB           int    // 0: 1
	Kill          string // "kill" or "interrupt": at the first line of progress
	At            string // the line of progress, if that is another
	Upgrade       bool   // build it, and then upgrade its packages
	Spec          api.ImageSpec
}

// An answer is what came of a call.
type answer struct {
	Image    api.Image
	Error    string
	Missing  bool
	Progress []string
	Left     []string // names in the store, without that of Base
	Base     string   // the ID of the image whose packages were upgraded
}

const callEnv = "VSFLEET_TEST_BUILD"

func init() {
	text := os.Getenv(callEnv)
	if text == "" {
		return
	}
	os.Unsetenv(callEnv)
	var c call
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(c.build()); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// guests has one guest, whose root is a directory.
type guests string

func (g guests) Snapshot(_ context.Context, name, _ string, use func(*os.File) error) error {
	if name != "www" {
		return builder.Missing(fmt.Errorf("no guest %s", name))
	}
	root, err := os.Open(string(g))
	if err != nil {
		return err
	}
	defer root.Close()
	return use(root)
}

// enter makes the mounts of a call, in a mount namespace of its own.
func (c *call) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if c.Small {
		if err := unix.Mount("test", c.Store, "tmpfs", 0, fmt.Sprintf("size=%dm", max(c.MiB, 1))); err != nil {
			return err
		}
	}
	if c.Root == "" {
		return nil
	}
	store := "/var/lib/vservers"
	for from, to := range map[string]string{"/proc": "/proc", c.Store: store} {
		if err := unix.Mount(from, c.Root+to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	c.Store = store
	return errors.Join(unix.Chroot(c.Root), os.Chdir("/"))
}

func (c call) build() (a answer) {
	if err := c.enter(); err != nil {
		return answer{Error: err.Error()}
	}
	defer func() {
		entries, err := os.ReadDir(c.Store)
		if err != nil {
			a.Error = err.Error()
		}
		for _, e := range entries {
			if "sha256:"+e.Name() != a.Base {
				a.Left = append(a.Left, e.Name())
			}
		}
	}()
	s, err := images.Open(c.Store)
	if err != nil {
		return answer{Error: err.Error()}
	}
	s.Plain = true // the test looks into the tree
	s.Guests = guests(c.Source)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	build := s.Build
	if c.Upgrade {
		base, _, err := s.Build(ctx, c.Spec, nil)
		if a.Base = base.ID; err != nil {
			return answer{Error: err.Error()}
		}
		build = func(ctx context.Context, spec api.ImageSpec, progress builder.Progress) (api.Image, bool, error) {
			return s.BuildFrom(ctx, spec, true, images.Input{Upgrade: base.ID}, progress)
		}
	}
	a.Image, _, err = build(ctx, c.Spec, func(e api.Event) {
		if e.Kind == api.Warning {
			return
		}
		a.Progress = append(a.Progress, e.Message)
		switch {
		case c.At != "" && e.Message != c.At || c.At == "" && len(a.Progress) != 1:
		case c.Kill == "kill":
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		case c.Kill == "interrupt":
			unix.Kill(os.Getpid(), unix.SIGINT)
			<-ctx.Done()
		}
	})
	if err != nil {
		a.Error = err.Error()
		var missing *builder.MissingError
		a.Missing = errors.As(err, &missing)
	}
	return a
}

// run has a vsnode build; killed reports that it did not live to answer.
func (c call) run(t *testing.T) (a answer, killed bool) {
	t.Helper()
	text, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), callEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.Output()
	if err != nil && err.Error() == "signal: killed" {
		return a, true
	}
	must(t, err)
	must(t, json.Unmarshal(out, &a))
	return a, false
}

// left returns the names in a store.
func left(t *testing.T, store string) []string {
	t.Helper()
	entries, err := os.ReadDir(store)
	must(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestConformance(t *testing.T) {
	for _, m := range buildmethod.Names() {
		if _, ok := fixtures[m]; !ok {
			t.Errorf("the method %s has no fixture", m)
		}
	}
	for name, f := range fixtures {
		t.Run(name, func(t *testing.T) { conform(t, f) })
	}
}

func conform(t *testing.T, f fixture) {
	source := plant(t)
	prepare := func(t *testing.T) call {
		t.Helper()
		c := call{Store: t.TempDir(), Source: source, Spec: f.spec(t, source)}
		if c.Spec.Name = "box"; f.inRoot {
			c.Root = source
		}
		return c
	}
	t.Run("a good root comes out", func(t *testing.T) {
		c := prepare(t)
		a, _ := c.run(t)
		if a.Error != "" {
			t.Fatal(a.Error)
		}
		if len(a.Progress) < 3 { // what the method does, the digest, the disk
			t.Errorf("progress: %q", a.Progress)
		}
		if len(a.Left) != 1 || "sha256:"+a.Left[0] != a.Image.ID {
			t.Fatalf("the store holds %q, want %s", a.Left, a.Image.ID)
		}
		root := filepath.Join(c.Store, strings.TrimPrefix(a.Image.ID, "sha256:"), "tree")
		isGoodRoot(t, root, c.Spec.Method)
		if f.drifts {
			return
		}
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // times count in seconds
		again := c
		again.Store = t.TempDir()
		if b, _ := again.run(t); b.Image.ID != a.Image.ID {
			t.Errorf("the same input became %s and then %s (%s)", a.Image.ID, b.Image.ID, b.Error)
		}
	})
	t.Run("Ctrl-C leaves nothing", func(t *testing.T) {
		c := prepare(t)
		c.Kill = "interrupt"
		a, _ := c.run(t)
		if !strings.Contains(a.Error, "context canceled") || len(a.Left) > 0 {
			t.Errorf("error %q, left %q", a.Error, a.Left)
		}
	})
	t.Run("kill -9 leaves nothing to the next build", func(t *testing.T) {
		c := prepare(t)
		c.Kill = "kill"
		if a, killed := c.run(t); !killed {
			t.Fatalf("it was not killed: %+v", a)
		}
		if names := left(t, c.Store); len(names) != 1 || !strings.HasPrefix(names[0], ".tmp-") {
			t.Errorf("the killed build left %q: was it killed in time?", names)
		}
		c.Kill = ""
		a, _ := c.run(t)
		if a.Error != "" || len(a.Left) != 1 || "sha256:"+a.Left[0] != a.Image.ID {
			t.Errorf("error %q, left %q", a.Error, a.Left)
		}
	})
	t.Run("a full disk is named and left empty", func(t *testing.T) {
		c := prepare(t)
		c.Small = true
		a, _ := c.run(t)
		if !strings.Contains(a.Error, "no space left on device") || !strings.Contains(a.Error, "MiB free") || len(a.Left) > 0 {
			t.Errorf("error %q, left %q", a.Error, a.Left)
		}
	})
	t.Run("what no image holds is left out", func(t *testing.T) {
		for name, do := range map[string]func(at string) error{
			"srv/null":   func(at string) error { return unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
			"srv/sda":    func(at string) error { return unix.Mknod(at, unix.S_IFBLK|0o666, int(unix.Mkdev(8, 0))) },
			"srv/socket": func(at string) error { return unix.Mknod(at, unix.S_IFSOCK|0o666, 0) },
			"srv": func(at string) error {
				return unix.Setxattr(at, "trusted.overlay.redirect", []byte("/etc"), 0)
			},
			"srv/after": func(at string) error {
				return unix.Setxattr(at, "trusted.overlay.metacopy", nil, 0)
			},
		} {
			must(t, do(filepath.Join(source, name)))
		}
		defer func() {
			for _, name := range []string{"null", "sda", "socket"} {
				must(t, os.Remove(filepath.Join(source, "srv", name)))
			}
		}()
		c := prepare(t)
		a, _ := c.run(t)
		if a.Error != "" {
			t.Fatal(a.Error)
		}
		root := filepath.Join(c.Store, strings.TrimPrefix(a.Image.ID, "sha256:"), "tree")
		must(t, filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
			if e.Type()&(fs.ModeDevice|fs.ModeSocket) != 0 {
				t.Errorf("%s is %v", name, e.Type())
			}
			list := make([]byte, 1024)
			if n, _ := unix.Llistxattr(name, list); bytes.Contains(list[:n], []byte("trusted.")) {
				t.Errorf("%s has the attributes %q", name, list[:n])
			}
			return err
		}))
	})
	t.Run("an owner that no guest has is refused", func(t *testing.T) {
		owned := filepath.Join(source, "srv/after")
		must(t, os.Lchown(owned, 100_000, 0))
		defer os.Lchown(owned, 33, 65533)
		c := prepare(t)
		a, _ := c.run(t)
		if !strings.Contains(a.Error, "its owner is 100000:0, and guests have the ids 0 to 65535 only") || !strings.Contains(a.Error, "srv/after") || len(a.Left) > 0 {
			t.Errorf("error %q, left %q", a.Error, a.Left)
		}
	})
}

// isGoodRoot fails the test unless the tree is what was planted, made fit for guests.
func isGoodRoot(t *testing.T, root, method string) {
	t.Helper()
	for name, want := range map[string]string{ // content, or where a link leads
		"etc/passwd": "root:x:0:0::/:/bin/sh\n", "bin/ping": "ping", "usr/bin/sudo": "su", "srv/after": "x", "srv/out": "../../../../etc/shadow",
		"etc/machine-id":                           "",
		"etc/systemd/system/default.target":        "/usr/lib/systemd/system/multi-user.target",
		"etc/systemd/system/systemd-udevd.service": "/dev/null",
	} {
		got, err := os.Readlink(filepath.Join(root, name))
		if err != nil {
			var b []byte
			b, err = os.ReadFile(filepath.Join(root, name))
			got = string(b)
		}
		if err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(root, "etc/fstab")); err != nil || bytes.HasPrefix(b, []byte("/dev")) {
		t.Errorf("etc/fstab is %q, %v", b, err)
	}
	stat := func(name string) (st unix.Stat_t) {
		must(t, unix.Lstat(filepath.Join(root, name), &st))
		return st
	}
	if a, b := stat("usr/bin/su"), stat("usr/bin/sudo"); a.Ino != b.Ino || a.Mode&0o7777 != 0o4755 {
		t.Errorf("su is %o, and not linked", a.Mode)
	}
	if st := stat("srv/after"); st.Uid != 33 || st.Gid != 65533 || st.Mtim.Sec != 1e9 {
		t.Errorf("srv/after: %d:%d of %d", st.Uid, st.Gid, st.Mtim.Sec)
	}
	if st := stat("srv/fifo"); st.Mode != unix.S_IFIFO|0o600 {
		t.Errorf("srv/fifo: %o", st.Mode)
	}
	for name, attr := range map[string]string{"usr/bin/ping": "security.capability", "srv": "user.note"} {
		if n, err := unix.Getxattr(filepath.Join(root, name), attr, nil); err != nil || n == 0 {
			t.Errorf("%s of %s: %d bytes, %v", attr, name, n, err)
		}
	}
	_, err := os.Stat(filepath.Join(root, "etc/ssh/ssh_host_rsa_key"))
	if copies := slices.Contains([]string{"clone", "host", "debootstrap", "dnf", "yum"}, method); copies != os.IsNotExist(err) {
		t.Errorf("the SSH host key: %v", err)
	}
	if _, err := tree.Digest(context.Background(), root); err != nil {
		t.Error(err)
	}
}
