package push

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vsfleet/vsfleet/fleet/push/pushtest"
	"github.com/vsfleet/vsfleet/fleet/transport"
)

func TestStart(t *testing.T) {
	h := newHost(t, "")
	n := h.start()
	if !n.Pushed || h.Commands() != 3 {
		t.Errorf("cold: pushed %t by %d commands, want it pushed by 3", n.Pushed, h.Commands())
	}
	if v := version(t, n); v != "one" {
		t.Errorf("it is version %q", v)
	}
	files := h.Files("*/vsnode")
	if len(files) != 1 {
		t.Fatalf("files %v, want one", files)
	}
	if info, err := os.Lstat(files[0]); err != nil || info.Mode() != 0o700 {
		t.Errorf("%s: %v, error %v", files[0], info.Mode(), err)
	}
	if left := h.Files(".upload-*"); left != nil {
		t.Errorf("left over: %v", left)
	}
	n.Session.Close()

	before := h.Commands()
	n = h.start()
	if n.Pushed || h.Commands() != before+1 {
		t.Errorf("warm: pushed %t by %d commands, want 1", n.Pushed, h.Commands()-before)
	}
	n.Session.Close()

	h.opts.Binaries = pushtest.Vsnode(t, "two")
	n = h.start()
	if v := version(t, n); !n.Pushed || v != "two" {
		t.Errorf("another version: pushed %t, it is version %q", n.Pushed, v)
	}
}

// tools lists what a host needs, besides a program that unpacks.
var tools = []string{"sh", "find", "uname", "id", "mkdir", "chmod", "sha256sum", "sync", "mv", "rm", "ls", "grep", "cat", "printf"}

// binWith returns a directory with some of this machine's programs.
func binWith(t *testing.T, names ...string) string {
	t.Helper()
	bin := t.TempDir()
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

func TestStartByWhatAHostHas(t *testing.T) {
	for _, row := range []struct {
		name  string
		tools []string
	}{
		{"a host with zstd and gzip", []string{"zstd", "gzip"}},
		{"a host with gzip alone", []string{"gzip"}},
		{"a host with neither", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t, "PATH="+binWith(t, append(row.tools, tools...)...))
			if n := h.start(); !n.Pushed {
				t.Error("not pushed")
			}
		})
	}
	for _, missing := range hostTools {
		t.Run("a host without "+missing, func(t *testing.T) {
			others := slices.DeleteFunc(slices.Clone(tools), func(name string) bool { return name == missing })
			newHost(t, "PATH="+binWith(t, others...)).wantStartError("web1 lacks what a push needs: " + missing + " (")
		})
	}
}

func TestStartRefusals(t *testing.T) {
	broken := func(change func(zst []byte) []byte) fstest.MapFS {
		files := fstest.MapFS{}
		for name, f := range pushtest.Vsnode(t, "one") {
			data := bytes.Clone(f.Data)
			if strings.HasSuffix(name, ".zst") {
				data = change(data)
			}
			files[name] = &fstest.MapFile{Data: data}
		}
		return files
	}
	other := pushtest.Carry([]byte("another program"))
	for _, row := range []struct {
		name, login string
		files       fs.FS
		before      string // on the host, with DIR
		want        []string
	}{
		{name: "a vsfleet without vsnodes says how to build one", files: fstest.MapFS{},
			want: []string{"make build"}},
		{name: "a machine that vsnode is not made for is named", login: "PATH=FAKE:$PATH",
			before: `printf "#!/bin/sh\necho riscv64\n" >FAKE/uname; chmod 755 FAKE/uname`, want: []string{"web1", "riscv64"}},
		{name: "a user who is not root is told what to do", login: "PATH=FAKE:$PATH",
			before: `printf "#!/bin/sh\necho 1000\n" >FAKE/id; chmod 755 FAKE/id`, want: []string{"web1", "not root", "become"}},
		{name: "a stream that ends too early leaves nothing",
			files: broken(func(b []byte) []byte { return b[:len(b)/2] }), want: []string{"web1", "push"}},
		{name: "what is not what was meant leaves nothing",
			files: broken(func([]byte) []byte { return other["vsnode-linux-amd64.zst"].Data }),
			want:  []string{"web1", "what arrived is not what was sent"}},
		{name: "a full file system is told",
			before: "mkdir -p DIR; mount -t tmpfs -o size=64k,mode=700 none DIR", want: []string{"web1", "No space left"}},
		{name: "a read-only file system is told",
			before: "mkdir -p DIR; mount -t tmpfs -o ro,mode=700 none DIR", want: []string{"web1", "Read-only"}},
		{name: "a file system without programs is told",
			before: "mkdir -p DIR; mount -t tmpfs -o noexec,mode=700 none DIR", want: []string{"web1", "noexec"}},
		{name: "a directory of somebody else is told",
			before: "mkdir -p DIR; chown nobody DIR", want: []string{"web1", "does not belong to root"}},
		{name: "a login that ends is shown with its last words",
			login: "echo this account is closed; exit 1", want: []string{"web1", "this account is closed"}},
		{name: "chatter without end is cut off",
			login: "while :; do echo chatter; done", want: []string{"web1", "65536 bytes", "chatter"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			fake := t.TempDir()
			h := newHost(t, strings.ReplaceAll(row.login, "FAKE", fake))
			if row.files != nil {
				h.opts.Binaries = row.files
			}
			if row.before != "" {
				script := strings.NewReplacer("DIR", h.Pushed, "FAKE", fake).Replace(row.before)
				if exit, err := h.Dial().Exec(t.Context(), script, nil, nil, nil); exit != 0 || err != nil {
					t.Fatalf("exit %d, error %v", exit, err)
				}
			}
			h.wantStartError(row.want...)
			if left := append(h.Files(".upload-*"), h.Files("*/vsnode")...); left != nil {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

func TestPushOfOneArchitecture(t *testing.T) {
	h := newHost(t, "")
	files := fstest.MapFS{}
	for name, f := range pushtest.Vsnode(t, "one") {
		if strings.Contains(name, "arm64") {
			files[name] = f
		}
	}
	h.opts.Binaries = files
	h.wantStartError("web1", "no vsnode for linux/amd64", "make build")
}

func TestVsnodeThatAnotherCouldHaveWrittenIsReplaced(t *testing.T) {
	h := newHost(t, "")
	h.start()
	file := h.Files("*/vsnode")[0]
	for _, row := range []struct{ name, change string }{
		{"another owner", "chown nobody FILE"},
		{"open to others", "chmod 755 FILE"},
		{"another size", "cp -p FILE FILE.new; echo >>FILE.new; mv FILE.new FILE"},
		{"a link", "mv FILE /tmp/elsewhere.$$; ln -s /tmp/elsewhere.$$ FILE"},
		{"a directory open to others", "chmod 777 DIR"},
	} {
		t.Run(row.name, func(t *testing.T) {
			script := strings.NewReplacer("FILE", file, "DIR", h.Pushed, "/tmp/", filepath.Dir(h.Dir)+"/").Replace(row.change)
			if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if n := h.start(); !n.Pushed {
				t.Error("it was started as it is")
			}
			if n := h.start(); n.Pushed {
				t.Error("it was not put right")
			}
		})
	}
}

func TestPushesAtOnce(t *testing.T) {
	h := newHost(t, "")
	var all sync.WaitGroup
	for range 6 {
		conn := h.Dial()
		all.Go(func() {
			n, err := h.opts.Start(t.Context(), conn, Serve)
			if err != nil {
				t.Error(err)
			} else if v := version(t, n); v != "one" {
				t.Errorf("it is version %q", v)
			}
		})
	}
	all.Wait()
	if left := h.Files(".upload-*"); left != nil || len(h.Files("*/vsnode")) != 1 {
		t.Errorf("left over: %v, files %v", left, h.Files("*/vsnode"))
	}
}

// halfUpload begins an upload and stops in the middle.
func halfUpload(t *testing.T, h *host) *transport.Session {
	t.Helper()
	list, err := readBinaries(h.opts.Binaries)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.Dial().Pipe(t.Context(), shell(uploadScript(h.Pushed, ".upload-half", list[0], "zstd")))
	if err != nil {
		t.Fatal(err)
	}
	zst, err := list[0].zst()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stdin.Write(zst[:len(zst)/2]); err != nil {
		t.Fatal(err)
	}
	pushtest.WaitFor(t, "the upload to begin", func() bool { return h.Files(".upload-half") != nil })
	return s
}

func TestUploadsThatWereKilled(t *testing.T) {
	t.Run("a controller that goes leaves nothing", func(t *testing.T) {
		h := newHost(t, "")
		halfUpload(t, h).Close()
		pushtest.WaitFor(t, "the half upload to go", func() bool { return h.Files(".upload-*") == nil })
		h.start()
	})
	t.Run("a host that goes leaves what a later push removes", func(t *testing.T) {
		h := newHost(t, "")
		halfUpload(t, h)
		h.Kill()
		again := newHost(t, "")
		again.opts = h.opts
		again.start()
		if h.Files(".upload-half") == nil {
			t.Fatal("an upload of this hour was removed: it may be another controller's")
		}
		old := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(h.Files(".upload-half")[0], old, old); err != nil {
			t.Fatal(err)
		}
		again.opts.Binaries = pushtest.Vsnode(t, "two")
		again.start()
		if left := h.Files(".upload-*"); left != nil {
			t.Errorf("left over: %v", left)
		}
	})
}

func TestOldVersionsGo(t *testing.T) {
	h := newHost(t, "")
	h.start()
	one := filepath.Base(filepath.Dir(h.Files("*/vsnode")[0]))
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	version := func(char string, age time.Duration) string {
		dir := filepath.Join(h.Pushed, strings.Repeat(char, 64))
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "vsnode"), sleep, 0o700)); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(dir, then, then); err != nil {
			t.Fatal(err)
		}
		return filepath.Base(dir)
	}
	const month = 32 * 24 * time.Hour
	version("a", month)
	used := version("b", month)
	young := version("c", time.Hour)
	s, err := h.Dial().Pipe(t.Context(), filepath.Join(h.Pushed, used, "vsnode")+" 1000 & pid=$!; cat; kill $pid")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stdin.Close()

	h.opts.Binaries = pushtest.Vsnode(t, "two")
	n := h.start()
	got := map[string]bool{}
	for _, f := range h.Files("*/vsnode") {
		got[filepath.Base(filepath.Dir(f))] = true
	}
	list, err := readBinaries(h.opts.Binaries)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || !got[one] || !got[used] || !got[young] || !got[list[0].hash] || n.Version != list[0].hash[:12] {
		t.Errorf("there are %v", got)
	}
}

func TestChatterOfALoginShellIsSkipped(t *testing.T) {
	h := newHost(t, `echo "Welcome to web1!"; printf "\000vsnode-serve-2\n\000\000vsnode\n"; echo "bash: cannot set terminal" >&2`)
	if v := version(t, h.start()); v != "one" {
		t.Errorf("it is version %q", v)
	}
}

func TestStartThroughLoginShells(t *testing.T) {
	for _, sh := range pushtest.LoginShells {
		t.Run(sh, func(t *testing.T) {
			h := newHost(t, "exec "+sh+` -c "$SSH_ORIGINAL_COMMAND"`)
			if n := h.start(); !n.Pushed {
				t.Error("not pushed")
			}
		})
	}
}

// sshd does not end the output of a command before the command ends.
func TestALoginThatHangsIsGivenUp(t *testing.T) {
	h := newHost(t, "sleep 20")
	ctx, interrupt := context.WithCancelCause(t.Context())
	time.AfterFunc(300*time.Millisecond, func() { interrupt(errors.New("interrupted")) })
	done := make(chan error, 1)
	go func() {
		_, err := h.opts.Start(ctx, h.Dial(), Serve)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "interrupted") {
			t.Errorf("error %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Start waits for the login")
	}
}
