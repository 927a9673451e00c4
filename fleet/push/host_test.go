package push

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// built are the vsnodes of testdata by flavour: the tests share them.
var built sync.Map

// vsnode of testdata, as vsfleet carries it.
func vsnode(t testing.TB, flavour string) fstest.MapFS {
	t.Helper()
	build, _ := built.LoadOrStore(flavour, sync.OnceValues(func() (fstest.MapFS, error) {
		dir, err := os.MkdirTemp("", "vsnode-test-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, "vsnode")
		cmd := exec.Command("go", "build", "-ldflags", "-s -w -X main.flavour="+flavour, "-o", file, "./testdata/vsnode")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, out)
		}
		b, err := os.ReadFile(file)
		return carry(b), err
	}))
	files, err := build.(func() (fstest.MapFS, error))()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// carry packs a program for both architectures.
func carry(program []byte) fstest.MapFS {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	files := fstest.MapFS{}
	sum := fmt.Sprintf("%x %d\n", sha256.Sum256(program), len(program))
	for _, arch := range []string{"amd64", "arm64"} {
		files["vsnode-linux-"+arch+".zst"] = &fstest.MapFile{Data: enc.EncodeAll(program, nil)}
		files["vsnode-linux-"+arch+".sha256"] = &fstest.MapFile{Data: []byte(sum)}
	}
	return files
}

// host is a real sshd that counts the commands it is given.
type host struct {
	*sshtest.Server
	t    *testing.T
	opts Options
}

// newHost starts one; login may hold lines of shell that run before a command,
// config lines of sshd_config.
func newHost(t *testing.T, login string, config ...string) *host {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	commands := filepath.Join(t.TempDir(), "commands")
	h := &host{t: t, opts: Options{Dir: filepath.Join(t.TempDir(), "vsnode"), Binaries: vsnode(t, "one")}}
	h.Server = sshtest.Start(t, sshtest.Options{
		Config: config,
		Login:  "echo >>" + commands + "\n" + login + "\n" + `exec sh -c "$SSH_ORIGINAL_COMMAND"`,
	})
	h.Dir = commands
	return h
}

// commands that the host was given.
func (h *host) commands() int {
	b, err := os.ReadFile(h.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	return len(b)
}

func (h *host) dial() *transport.Conn {
	h.t.Helper()
	c, err := new(transport.Dialer).Dial(h.t.Context(), transport.Settings{
		Name: "web1", Address: "127.0.0.1", Port: h.Port, Identity: h.Identity, KnownHosts: h.KnownHosts,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

func (h *host) start() *Node {
	h.t.Helper()
	n, err := h.opts.Start(h.t.Context(), h.dial())
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// refuses wants Start to fail with a text.
func (h *host) refuses(want ...string) {
	h.t.Helper()
	_, err := h.opts.Start(h.t.Context(), h.dial())
	if err == nil {
		h.t.Fatal("vsnode started")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			h.t.Errorf("error %q\ndoes not say %q", err, w)
		}
	}
	if transport.Unreachable(err) {
		h.t.Errorf("%v: the host was reached", err)
	}
}

// files of the host's directory, without those that are being uploaded.
func (h *host) files(pattern string) []string {
	h.t.Helper()
	names, err := filepath.Glob(filepath.Join(h.opts.Dir, pattern))
	if err != nil {
		h.t.Fatal(err)
	}
	return names
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
