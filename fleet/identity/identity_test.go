package identity

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const machine = "0123456789abcdef0123456789abcdef\n"

func sent(t testing.TB, keys map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	must(t, err)
	w := tar.NewWriter(z)
	for _, f := range []struct{ name, content string }{
		{"root/etc/hostname", "www.example.net\n"},
		{"root/etc/hosts", "127.0.0.1 localhost\n198.51.100.1\twww.example.net www\n198.51.100.10 www2\n"},
		{"root/etc/machine-id", machine}, {"root/var/lib/dbus/machine-id", machine}, {"root/var/lib/other/machine-id", machine},
		{"root/etc/ssh/ssh_host_ecdsa_key", keys["ecdsa"]}, {"root/etc/ssh/ssh_host_ed25519_key", "old"}, {"root/etc/ssh/ssh_host_ed25519_key-cert.pub", "old"},
		{"root/etc/ssh/ssh_host_ed25519_key.pub", "old"}, {"root/etc/ssh/ssh_host_dsa_key", "old"}, {"root/etc/ssh/ssh_host_rsa_key.pub", "without its key"}, {"root/etc/ssh/sshd_config", "same"},
	} {
		must(t, w.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.content)), Mode: 0o640, Uid: 7}))
		_, err := io.WriteString(w, f.content)
		must(t, err)
	}
	must(t, w.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeLink, Name: "root/kept", Linkname: "root/kept"}))
	must(t, w.Close())
	must(t, z.Close())
	return b.Bytes()
}

func received(t testing.TB, b []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	z, err := zstd.NewReader(bytes.NewReader(b))
	must(t, err)
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		if h.Typeflag == tar.TypeReg && (h.Mode != 0o640 || h.Uid != 7) {
			t.Errorf("%s has mode %o and owner %d", h.Name, h.Mode, h.Uid)
		}
		files[strings.TrimPrefix(h.Name, "root/")] = string(content)
	}
}

func TestAClonesFilesHaveItsOwnIdentity(t *testing.T) {
	c := &Change{Host: "copy", Names: map[string]string{"www.example.net": "copy", "www": "copy", "198.51.100.1": "198.51.100.2"}}
	var b bytes.Buffer
	must(t, c.Apply(t.Context(), bytes.NewReader(sent(t, map[string]string{"ecdsa": "old"})), &b))
	files := received(t, b.Bytes())
	for name, want := range map[string]string{
		"etc/hostname": "copy\n", "etc/hosts": "127.0.0.1 localhost\n198.51.100.2\tcopy copy\n198.51.100.10 www2\n",
		"var/lib/other/machine-id": machine, "etc/ssh/sshd_config": "same", "kept": "",
	} {
		if got, there := files[name]; got != want || !there {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if id := files["etc/machine-id"]; id == machine || len(id) != 33 || files["var/lib/dbus/machine-id"] != id {
		t.Errorf("the machine ids are %q and %q", id, files["var/lib/dbus/machine-id"])
	}
	for _, name := range []string{"etc/ssh/ssh_host_ed25519_key-cert.pub", "etc/ssh/ssh_host_dsa_key", "etc/ssh/ssh_host_rsa_key.pub", "etc/ssh/ssh_host_ecdsa_key.pub"} {
		if _, there := files[name]; there {
			t.Errorf("%s is still there", name)
		}
	}
	key, err := ssh.ParsePrivateKey([]byte(files["etc/ssh/ssh_host_ed25519_key"]))
	must(t, err)
	if want := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))) + " root@copy\n"; files["etc/ssh/ssh_host_ed25519_key.pub"] != want {
		t.Errorf("the public key is %q, want %q", files["etc/ssh/ssh_host_ed25519_key.pub"], want)
	}
	if key, err := ssh.ParsePrivateKey([]byte(files["etc/ssh/ssh_host_ecdsa_key"])); err != nil || key.PublicKey().Type() != ssh.KeyAlgoECDSA256 {
		t.Errorf("the ecdsa key: %v", err)
	}

	// What was sent before is what the next round has too.
	var again bytes.Buffer
	must(t, c.Apply(t.Context(), bytes.NewReader(sent(t, map[string]string{"ecdsa": "old"})), &again))
	if id := received(t, again.Bytes())["etc/machine-id"]; id != files["etc/machine-id"] {
		t.Errorf("the machine id is %q in another round", id)
	}
}

func TestHalfAGuestIsNoClone(t *testing.T) {
	whole := sent(t, nil)
	for _, n := range []int{0, 10, len(whole) / 2, len(whole) - 4} {
		if err := (&Change{}).Apply(t.Context(), bytes.NewReader(whole[:n]), io.Discard); err == nil {
			t.Errorf("%d of %d bytes were taken", n, len(whole))
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add(sent(f, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = (&Change{Host: "a"}).Apply(t.Context(), bytes.NewReader(data), io.Discard)
	})
}
