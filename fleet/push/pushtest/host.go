// Package pushtest has what tests of fleet/push and fleet/remote share: a real sshd
// as the host, and a vsnode that answers for a made-up host
// (fleet/push/testdata/vsnode).
package pushtest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// built holds the vsnodes of testdata by flavour, which the tests share.
var built sync.Map

// Vsnode returns the vsnode of testdata in the form in which vsfleet carries one. Each
// flavour has another hash.
func Vsnode(t testing.TB, flavour string) fstest.MapFS {
	t.Helper()
	build, _ := built.LoadOrStore(flavour, sync.OnceValues(func() (fstest.MapFS, error) {
		dir, err := os.MkdirTemp("", "vsnode-test-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		file := filepath.Join(dir, "vsnode")
		cmd := exec.Command("go", "build", "-ldflags", "-s -w -X main.flavour="+flavour, "-o", file, "github.com/vsfleet/vsfleet/fleet/push/testdata/vsnode")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, out)
		}
		b, err := os.ReadFile(file)
		return Carry(b), err
	}))
	files, err := build.(func() (fstest.MapFS, error))()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Carry returns a program packed as the vsnode of both architectures.
func Carry(program []byte) fstest.MapFS {
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

// LoginShells are login shells of Debian. sshd passes the command to them by -c.
var LoginShells = []string{"dash", "bash", "zsh", "fish", "tcsh", "busybox sh"}

// Host is a real sshd that counts the commands that it gets.
type Host struct {
	*sshtest.Server
	Pushed string // directory of vsnode on the host
	t      *testing.T
	count  string // a file: one byte per command
}

// NewHost starts a host. login may hold lines of shell that run before each command,
// config lines of sshd_config.
func NewHost(t *testing.T, login string, config ...string) *Host {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	h := &Host{t: t, Pushed: filepath.Join(t.TempDir(), "vsnode"), count: filepath.Join(t.TempDir(), "commands")}
	h.Server = sshtest.Start(t, sshtest.Options{
		Config: config,
		Login:  "echo >>" + h.count + "\n" + login + "\n" + `exec sh -c "$SSH_ORIGINAL_COMMAND"`,
	})
	return h
}

// Commands returns the number of commands that the host got.
func (h *Host) Commands() int {
	b, err := os.ReadFile(h.count)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	return len(b)
}

// Dial connects to the host as web1.
func (h *Host) Dial() *transport.Conn {
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

// Files returns the files in the directory of vsnode that match a pattern.
func (h *Host) Files(pattern string) []string {
	h.t.Helper()
	names, err := filepath.Glob(filepath.Join(h.Pushed, pattern))
	if err != nil {
		h.t.Fatal(err)
	}
	return names
}

// WaitFor waits until is returns true; what describes that.
func WaitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
