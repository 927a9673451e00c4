package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// Each guest of an image with an sshd has a host key of its own that ssh-keygen reads,
// whatever its init; an image's own keys are left alone.
func TestHostKeys(t *testing.T) {
	h := host(t)
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	keyOf := func(name string) string {
		g := inMode(api.ModeNAT, name, 0, "sleep", "1000")
		g.Network.Forwards = nil
		must(t, h.Create(t.Context(), g))
		path := filepath.Join(h.rootDir(name), "etc/ssh/ssh_host_ed25519_key")
		out, err := exec.Command("ssh-keygen", "-y", "-f", path).Output()
		if err != nil {
			return ""
		}
		public, err := os.ReadFile(path + ".pub")
		must(t, err)
		if string(out) != string(public) {
			t.Errorf("%s: the private key is %s, the public %s", name, out, public)
		}
		return strings.Fields(string(out))[1]
	}
	if key := keyOf("none"); key != "" {
		t.Errorf("a guest without an sshd has the key %s", key)
	}
	must(t, os.MkdirAll(tree+"/etc/ssh", 0o755))
	must(t, os.MkdirAll(tree+"/usr/sbin", 0o755))
	must(t, os.WriteFile(tree+"/usr/sbin/sshd", nil, 0o755))
	one, two := keyOf("one"), keyOf("two")
	if one == "" || one == two {
		t.Errorf("keys %q and %q", one, two)
	}
	must(t, os.WriteFile(tree+"/etc/ssh/ssh_host_rsa_key", []byte("the image's"), 0o600))
	if key := keyOf("three"); key != "" {
		t.Errorf("a guest whose image has a key got another: %s", key)
	}
}

// A start is a boot of the guest: a journal distinguishes its boots by this ID.
func TestEachStartIsABoot(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeNAT, "boots", 145, "sleep", "1000")
	g.NoNesting = true
	must(t, h.Create(t.Context(), g))
	ours, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	must(t, err)
	seen := map[string]bool{strings.TrimSpace(string(ours)): true}
	for range 2 {
		must(t, h.Start(t.Context(), g.Name, Options{}))
		id, _ := run(t, h, g.Name, "cat", "/proc/sys/kernel/random/boot_id")
		if len(id) != 36 || seen[id] {
			t.Errorf("boot id %q, seen were %v", id, seen)
		}
		seen[id] = true
		if got, _ := run(t, h, g.Name, "busybox", "ls", "-A", "/dev"); strings.Contains(got, "boot_id") {
			t.Errorf("left over in /dev: %s", got)
		}
		_, err := h.Stop(t.Context(), g.Name)
		must(t, err)
	}
}
