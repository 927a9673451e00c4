package console

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/bpf/bpftest"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

func TestMain(m *testing.M) { bpftest.Main(m) }

// newCgroup returns a new cgroup with a console.
func newCgroup(t *testing.T) *os.File {
	t.Helper()
	f, _ := newStart(t)
	return f
}

func newStart(t *testing.T) (*os.File, Start) {
	t.Helper()
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	started := Start{time.Duration(time.Now().UnixNano()), 28672}
	dir := filepath.Join(mount, fmt.Sprintf("test-console-%d", started.Since))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		if err := Forget(dir, started); err != nil {
			t.Error(err)
		}
		if err := cgroup.Dir(dir).Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := Attach(f, started); err != nil {
		t.Fatal(err)
	}
	return f, started
}

// parts counts the parts of a ring that are in memory.
func partsOf(t *testing.T, s Start) (n int) {
	t.Helper()
	p, err := pinned()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	m, err := mapsOf(p)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for part := range uint32(partCount) {
		var value [valueSize]byte
		err := bpf.Lookup(m[parts], key{uint64(s.Since), uint32(s.Context), part}, unsafe.Pointer(&value[0]))
		if err == nil {
			n++
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return n
}

// What a guest writes takes memory when it writes it, and until it is forgotten.
func TestMemoryOfAConsole(t *testing.T) {
	for _, row := range []struct {
		name, script string
		parts        int
		cgroup       bool // is still there when it is forgotten
	}{
		{"a guest that writes nothing", "true", 0, true},
		{"one that writes a line", "echo one", 1, true},
		{"and whose cgroup is gone", "echo one", 1, false},
		{"one that fills the first part", "head -c 12000 /dev/zero", 1, true},
		{"one that writes over its end", "head -c 11999 /dev/zero; echo one", 1, true},
		{"one that fills the ring twice over", "head -c 150000 /dev/zero", partCount, true},
		{"so that its cgroup goes first", "head -c 150000 /dev/zero", partCount, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			cg, started := newStart(t)
			inside(t, cg, row.script)
			if n := partsOf(t, started); n != row.parts {
				t.Errorf("%d parts are in memory, want %d", n, row.parts)
			}
			if !row.cgroup {
				cg.Close() // the kernel keeps it otherwise
				if err := cgroup.Dir(cg.Name()).Remove(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := Forget(cg.Name(), started); err != nil {
					t.Fatal(err)
				}
			}
			if n := partsOf(t, started); n != 0 {
				t.Errorf("%d parts are left", n)
			}
		})
	}
}

func TestConsolesOfTwoGuests(t *testing.T) {
	one, other := newCgroup(t), newCgroup(t)
	inside(t, one, "echo one; echo two")
	inside(t, other, "echo three")
	inside(t, one, "echo four")
	for cg, want := range map[*os.File]string{one: "one\ntwo\nfour\n", other: "three\n"} {
		if got, err := Read(cg.Name()); err != nil || string(got.Bytes) != want {
			t.Errorf("%q, %v, want %q", got.Bytes, err, want)
		}
	}
}

// inside runs a shell in the cgroup whose standard output is the console.
func inside(t *testing.T, cg *os.File, script string) {
	t.Helper()
	out, err := os.OpenFile(Node, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cg.Fd())}
	if err := cmd.Run(); err != nil {
		t.Errorf("%q: %v", script, err)
	}
}

func TestConsoleIsForAllUsers(t *testing.T) {
	cg := newCgroup(t)
	cmd := exec.Command("sh", "-c", "echo one >"+Node)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cg.Fd()), Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if got, err := Read(cg.Name()); err != nil || string(got.Bytes) != "one\n" {
		t.Errorf("%q, %v", got.Bytes, err)
	}
}

func TestConsoleKeepsWhatIsWritten(t *testing.T) {
	for _, row := range []struct{ name, script, text string }{
		{"nothing", "true", ""},
		{"two lines", "echo one; echo two", "one\ntwo\n"},
		{"an empty write", `printf ""; echo one`, "one\n"},
		{"a file that is opened anew is not emptied", "echo one; echo two >" + Node + "; echo three >>" + Node + "; echo four", "one\ntwo\nthree\nfour\n"},
		{"nor by truncating it", "echo one; truncate -s 0 " + Node + "; truncate -s 1G " + Node + "; echo two", "one\ntwo\n"},
		{"nor by writing at its beginning", "echo one; echo two | dd of=" + Node + " seek=0 conv=notrunc 2>/dev/null", "one\ntwo\n"},
		{"a program that sends a file", "busybox cat /proc/sys/kernel/ostype", "Linux\n"},
		{"other settings are not the console", "cat /proc/sys/kernel/ostype >/dev/null; cat /proc/sys/kernel/pid_max >/dev/null; echo one", "one\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cg := newCgroup(t)
			inside(t, cg, row.script)
			got, err := Read(cg.Name())
			if err != nil || string(got.Bytes) != row.text || got.Total != uint64(len(row.text)) {
				t.Errorf("%q of %d, %v, want %q", got.Bytes, got.Total, err, row.text)
			}
		})
	}
}

// A guest that writes without end keeps the last of it, in order and whole.
func TestConsoleKeepsTheEnd(t *testing.T) {
	for _, size := range []int{1, 7, 100, 1000, 4096, 5000, 100_000} {
		t.Run(fmt.Sprintf("writes of %d", size), func(t *testing.T) {
			cg := newCgroup(t)
			var all bytes.Buffer
			for i := 0; all.Len() < 300_000; i++ {
				fmt.Fprintf(&all, "line %d\n", i)
			}
			file := filepath.Join(t.TempDir(), "text")
			if size == 1 {
				all.Truncate(70_000)
			}
			if err := os.WriteFile(file, all.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			inside(t, cg, fmt.Sprintf("dd if=%s bs=%d 2>/dev/null", file, size))
			got, err := Read(cg.Name())
			if err != nil {
				t.Fatal(err)
			}
			if got.Total != uint64(all.Len()) || len(got.Bytes) != readSize || !bytes.HasSuffix(all.Bytes(), got.Bytes) {
				t.Errorf("%d of %d bytes, which are not the last: …%q", len(got.Bytes), got.Total, got.Bytes[max(0, len(got.Bytes)-100):])
			}
		})
	}
}

func TestManyWritersLoseNoLine(t *testing.T) {
	cg := newCgroup(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			inside(t, cg, fmt.Sprintf("i=0; while [ $i -lt 500 ]; do echo writer %d; i=$((i+1)); done", i))
		})
	}
	all.Wait()
	got, err := Read(cg.Name())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if n := bytes.Count(got.Bytes, fmt.Appendf(nil, "writer %d\n", i)); n < 495 || n > 500 {
			t.Errorf("%d lines of writer %d, want 500", n, i)
		}
	}
}

func TestCgroupWithoutConsole(t *testing.T) {
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{mount, mount + "/nosuch"} {
		if _, err := Read(dir); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v, want ErrNone", dir, err)
		}
	}
}
