package guest

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

func logOf(t *testing.T, h *Host, name string, lines int) string {
	t.Helper()
	var b bytes.Buffer
	must(t, h.Log(context.Background(), name, lines, false, &b))
	return b.String()
}

// eventually waits for a condition that takes a moment.
func eventually(t *testing.T, what func() string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 10 s: %s", what())
		}
	}
}

func TestConsoleIsLogged(t *testing.T) {
	for _, row := range []struct{ name, script, log string }{
		{"standard output and error", "echo one; echo two >&2; exec sleep 1000", "one\ntwo\n"},
		{"/dev/console", "echo one >/dev/console; echo two >>/dev/console; exec sleep 1000", "one\ntwo\n"},
		{"/dev/stderr opened anew", "echo one; echo two >/dev/stderr; exec sleep 1000", "one\ntwo\n"},
		{"a guest that empties it", "echo one; : >/dev/console; busybox truncate -s 0 /dev/console; echo two; exec sleep 1000", "one\ntwo\n"},
		{"a guest that lengthens it", "busybox truncate -s 1G /dev/console; busybox truncate -s 8192G /dev/console 2>/dev/null; busybox dd if=/dev/zero of=/dev/console bs=1 seek=1000000000 count=1 2>/dev/null; echo one; exec sleep 1000", "one\n"},
		{"a guest that hides it", "busybox mount -t tmpfs none /dev; echo one; exec sleep 1000", "one\n"},
		{"a shell of its own namespaces", "busybox unshare -U -r -p -f -m sh -c 'echo one >/dev/console'; echo two; exec sleep 1000", "one\ntwo\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			g := inMode(api.ModeNAT, "console", 115, "sh", "-c", row.script)
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			eventually(t, func() string { return row.log + ", but " + logOf(t, h, g.Name, 100) }, func() bool { return logOf(t, h, g.Name, 100) == row.log })
			_, err := h.Stop(ctx, g.Name)
			must(t, err)
			if got := logOf(t, h, g.Name, 100); got != row.log {
				t.Errorf("after the stop: %q", got)
			}
		})
	}
}

// `yes` as init once wrote 1.1 GB to the host's disk in 2 s.
func TestConsoleIsBounded(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "yes", 116, "busybox", "yes", "more than anybody wants to read")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	eventually(t, func() string { return "a ring that is full many times" }, func() bool {
		o, err := h.output(g.Name)
		must(t, err)
		return o.Total > 10<<20
	})
	if got := logOf(t, h, g.Name, 3); !strings.Contains(got, "more than") || strings.Count(got, "\n") > 3 {
		t.Errorf("3 lines are %q", got)
	}
	_, err := h.Stop(ctx, g.Name)
	must(t, err)
	st, err := os.Stat(h.consoleLog(g.Name))
	must(t, err)
	if st.Size() == 0 || st.Size() > 64<<10 {
		t.Errorf("the log has %d bytes", st.Size())
	}
}

func TestLogIsFollowed(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h := host(t)
	g := inMode(api.ModeShared, "follow", 117, "sh", "-c", "echo first; read wait </tmp/go; echo second; echo last")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	var mu sync.Mutex
	var said bytes.Buffer
	heard := func(text string) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return said.String() == text }
	}
	done := make(chan error)
	go func() {
		done <- h.Log(ctx, g.Name, 10, true, writer(func(b []byte) { mu.Lock(); defer mu.Unlock(); said.Write(b) }))
	}()
	start := "first\nsh: can't open /tmp/go: no such file\nsecond\nlast\n"
	eventually(t, said.String, heard(start))
	// A guest that ended is cleaned up after, and starts again.
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, cg.WaitEmpty(ctx))
	must(t, h.Sweep(ctx))
	must(t, h.Start(ctx, g.Name, Options{}))
	eventually(t, said.String, heard(start+start))
	cancel()
	must(t, <-done)
}

type writer func(b []byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestNewsOfALog(t *testing.T) {
	at := func(live bool, total int, text string) (o output) {
		o.live, o.Total, o.Bytes = live, uint64(total), []byte(text)
		return o
	}
	for _, row := range []struct {
		name      string
		last, now output
		news      string
	}{
		{"nothing new", at(true, 6, "a\nb\nc\n"), at(true, 6, "a\nb\nc\n"), ""},
		{"a line more", at(true, 4, "a\nb\n"), at(true, 6, "a\nb\nc\n"), "c\n"},
		{"more than the ring holds", at(true, 4, "a\nb\n"), at(true, 60, "y\nz\n"), "y\nz\n"},
		{"another start", at(true, 6, "a\nb\nc\n"), at(true, 2, "a\n"), "a\n"},
		{"the end of a guest", at(true, 6, "a\nb\nc\n"), at(false, 8, "a\nb\nc\nd\n"), "d\n"},
		{"a ring that was full", at(true, 100, "x\ny\n"), at(false, 6, "x\ny\nz\n"), "z\n"},
		{"a start after an end", at(false, 4, "a\nb\n"), at(true, 2, "a\n"), "a\n"},
		{"another end", at(false, 4, "a\nb\n"), output{file: 1, Text: at(false, 4, "a\nb\n").Text}, "a\nb\n"},
		{"a file that grows", at(false, 4, "a\nb\n"), at(false, 6, "a\nb\nc\n"), "c\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := string(newOutput(row.last, row.now)); got != row.news {
				t.Errorf("%q, want %q", got, row.news)
			}
		})
	}
}

func TestLastLines(t *testing.T) {
	for _, row := range []struct {
		text  string
		lines int
		last  string
	}{
		{"", 3, ""}, {"a\n", 3, "a\n"}, {"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\nc", 2, "b\nc"}, {"a\nb\n", 2, "a\nb\n"}, {"a\nb\n", 0, ""}, {"\n\n\n", 2, "\n\n"},
	} {
		if got := string(lastLines([]byte(row.text), row.lines)); got != row.last {
			t.Errorf("last %d of %q are %q, want %q", row.lines, row.text, got, row.last)
		}
	}
}

func TestLogHasNothingForATerminalToDo(t *testing.T) {
	var b bytes.Buffer
	_, err := WithoutControls(&b).Write([]byte("a\x1b[2Jb\r\n\tc\u009b31m\x07\n"))
	must(t, err)
	if b.String() != "a[2Jb\n\tc31m\n" {
		t.Errorf("%q", b.String())
	}
}

func TestSystemdIsFound(t *testing.T) {
	for _, row := range []struct {
		name    string
		link    string // of upper's sbin/init
		image   string
		systemd bool
	}{
		{"in the image", "", "/lib/systemd/systemd", true},
		{"in the guest's own files", "../lib/systemd/systemd", "/bin/busybox", true},
		{"another init of the guest's own", "/bin/busybox", "/lib/systemd/systemd", false},
		{"none", "", "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			root := procctx.Root{Upper: dir + "/upper", Image: dir + "/image"}
			for dir, link := range map[string]string{root.Upper: row.link, root.Image: row.image} {
				must(t, os.MkdirAll(dir+"/sbin", 0o755))
				if link != "" {
					must(t, os.Symlink(link, dir+"/sbin/init"))
				}
			}
			if got := bootsSystemd(root); got != row.systemd {
				t.Errorf("%v, want %v", got, row.systemd)
			}
		})
	}
}

func TestJournalOfAGuestThatDoesNotRun(t *testing.T) {
	outside := t.TempDir()
	for _, row := range []struct {
		name  string
		leave func(log string) error
		found bool
	}{
		{"none", func(string) error { return nil }, false},
		{"a directory", func(log string) error { return os.Mkdir(log+"/journal", 0o755) }, true},
		{"a link out of the guest", func(log string) error { return os.Symlink(outside, log+"/journal") }, false},
		{"a file", func(log string) error { return os.WriteFile(log+"/journal", nil, 0o644) }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			g := inMode(api.ModeNAT, "journal", 115, "sleep", "1000")
			must(t, h.Create(ctx, g))
			log := h.rootDir(g.Name) + "/var/log"
			must(t, os.MkdirAll(log, 0o755))
			must(t, row.leave(log))
			want := ""
			if row.found {
				want = log + "/journal"
			}
			if got := h.Journal(g.Name); got != want {
				t.Errorf("have %q, want %q", got, want)
			}
			must(t, h.Start(ctx, g.Name, Options{}))
			if got := h.Journal(g.Name); got != "" {
				t.Errorf("of one that runs: %q", got)
			}
			_, err := h.Stop(ctx, g.Name)
			must(t, err)
		})
	}
}
