package builder_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// upgradable makes a fixture of debootstrap's that has a shell, and an apt that does what
// the script says.
func upgradable(t *testing.T, apt string) call {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	source := t.TempDir()
	must(t, os.Chmod(source, 0o755))
	for _, dir := range []string{"usr/bin", "var/lib/dpkg", "etc", "srv"} {
		must(t, os.MkdirAll(filepath.Join(source, dir), 0o755))
	}
	must(t, exec.Command("cp", busybox, source+"/usr/bin/busybox").Run())
	must(t, os.Symlink("usr/bin", source+"/bin"))
	for _, name := range []string{"sh", "sleep", "cat", "dd", "test", "id"} {
		must(t, os.Symlink("busybox", source+"/usr/bin/"+name))
	}
	for name, text := range map[string]string{
		"usr/bin/apt-get": "#!/bin/sh\n[ \"$2\" = update ] && exit 0\n" + apt, "var/lib/dpkg/status": "Version: 1\n", "srv/data": "1\n",
	} {
		must(t, os.WriteFile(filepath.Join(source, name), []byte(text), 0o755))
	}
	tool(t, "mmdebstrap", `for dir; do :; done; cp -a `+source+`/. $dir`)
	return call{Store: t.TempDir(), Source: source, Upgrade: true, Spec: api.ImageSpec{
		Name: "box", Method: "debootstrap", Args: []string{"-d", "bookworm"}, Files: []api.File{{Path: "/etc/motd", Content: []byte("hi"), Digest: api.FileDigest([]byte("hi")), Mode: 0o644, Owner: "root:root"}},
	}}
}

// The next version of an image by newer packages, with what holds of every build.
func TestUpgrade(t *testing.T) {
	const upgrades = "echo Setting up x \\(2\\) ...; echo Version: 2 >/var/lib/dpkg/status; "
	read := func(t *testing.T, c call, a answer, name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(c.Store, strings.TrimPrefix(a.Image.ID, "sha256:"), "tree", name))
		must(t, err)
		return string(b)
	}
	t.Run("newer packages become another version", func(t *testing.T) {
		c := upgradable(t, upgrades+`cat /proc/self/mounts >/srv/mounts; test -c /dev/null && test -x /usr/sbin/policy-rc.d && test -e /etc/resolv.conf && test "$(id -u)$$" != 00 && echo 2 >/srv/data`)
		a, _ := c.run(t)
		if a.Error != "" || a.Image.ID == a.Base || len(a.Left) != 1 {
			t.Fatalf("%q, %s of %s, left %q", a.Error, a.Image.ID, a.Base, a.Left)
		}
		if got := read(t, c, a, "srv/data") + read(t, c, a, "var/lib/dpkg/status") + read(t, c, a, "etc/motd"); got != "2\nVersion: 2\nhi" {
			t.Errorf("it has %q", got)
		}
		for _, gone := range []string{"usr/sbin/policy-rc.d", "etc/resolv.conf", "dev/null"} {
			if _, err := os.Lstat(filepath.Join(c.Store, strings.TrimPrefix(a.Image.ID, "sha256:"), "tree", gone)); err == nil {
				t.Errorf("%s is still there", gone)
			}
		}
		if !slices.Contains(a.Progress, "copying the last version") || !slices.Contains(a.Progress, "configuring x") {
			t.Errorf("progress: %q", a.Progress)
		}
		if b, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(b), c.Store) {
			t.Errorf("mounts are left: %v", err)
		}
	})
	t.Run("without newer packages there is no other version", func(t *testing.T) {
		a, _ := upgradable(t, "echo 2 >/srv/data").run(t)
		if a.Error != "" || a.Image.ID != a.Base || len(a.Left) != 0 {
			t.Errorf("%q, %s of %s, left %q", a.Error, a.Image.ID, a.Base, a.Left)
		}
	})
	t.Run("what apt says is the error", func(t *testing.T) {
		a, _ := upgradable(t, upgrades+"echo 'E: it does not work' >&2; exit 100").run(t)
		if !strings.Contains(a.Error, "apt-get: exit status 100: E: it does not work") || len(a.Left) != 0 {
			t.Errorf("%q, left %q", a.Error, a.Left)
		}
	})
	t.Run("Ctrl-C leaves nothing", func(t *testing.T) {
		c := upgradable(t, upgrades+"sleep 100")
		c.Kill, c.At = "interrupt", "configuring x"
		a, _ := c.run(t)
		if !strings.Contains(a.Error, "context canceled") || len(a.Left) > 0 {
			t.Errorf("error %q, left %q", a.Error, a.Left)
		}
	})
	t.Run("kill -9 leaves nothing to the next build", func(t *testing.T) {
		c := upgradable(t, upgrades+"test -e /srv/go || sleep 100")
		c.Kill, c.At = "kill", "configuring x"
		if a, killed := c.run(t); !killed {
			t.Fatalf("it was not killed: %+v", a)
		}
		if names := left(t, c.Store); len(names) != 2 || !strings.HasPrefix(names[0], ".tmp-") {
			t.Errorf("the killed build left %q: was it killed in time?", names)
		}
		must(t, os.WriteFile(c.Source+"/srv/go", nil, 0o644)) // of another base, which is built first
		c.Kill, c.Spec.Packages = "", []string{"go"}
		a, _ := c.run(t)
		if a.Error != "" || len(a.Left) != 2 || strings.HasPrefix(a.Left[0], ".tmp-") {
			t.Errorf("error %q, left %q", a.Error, a.Left)
		}
	})
	t.Run("a full disk is named and left empty", func(t *testing.T) {
		c := upgradable(t, upgrades+"dd if=/dev/zero of=/srv/large bs=1000000 count=30")
		c.Small, c.MiB = true, 12
		a, _ := c.run(t)
		if !strings.Contains(a.Error, "no space left on device") || !strings.Contains(a.Error, "MiB free") || len(a.Left) > 0 {
			t.Errorf("error %q, left %q", a.Error, a.Left)
		}
	})
}
