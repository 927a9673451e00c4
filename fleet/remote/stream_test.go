package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/vsfleet/vsfleet/fleet/push/pushtest"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/node/api"
)

// vsnode serve takes one session; every stream needs another.
func TestAHostThatGivesOneSession(t *testing.T) {
	h := newHost(t, "", "MaxSessions 1")
	n := h.start()
	for range 2 {
		wantArgs(t, n.Host, "a", "b")
	}
	if _, err := n.State(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestChatterOfALoginShell(t *testing.T) {
	h := newHost(t, `echo "Welcome to web1!"; printf "\000vsnode-serve-2\n\000\000vsnode\n"; echo "bash: cannot set terminal" >&2`)
	n := h.start()
	if _, err := n.State(t.Context()); err != nil {
		t.Error(err)
	}
	wantArgs(t, n.Host, "a b", "it's", `"$HOME"`, "!x", "")
	var out bytes.Buffer
	data := strings.Repeat(api.Preamble, 100_000)
	exit, err := n.Exec(t.Context(), "www", Program{Argv: []string{"sh", "-c", "cat; exit 7"}}, Streams{In: strings.NewReader(data), Out: &out})
	if exit != 7 || err != nil || out.String() != data {
		t.Errorf("exit %d, error %v, %d bytes of %d", exit, err, out.Len(), len(data))
	}
}

// wantArgs fails the test unless the program gets these arguments.
func wantArgs(t *testing.T, h *Host, args ...string) {
	t.Helper()
	var out bytes.Buffer
	exit, err := h.Exec(t.Context(), "www", Program{Argv: append([]string{"echo"}, args...)}, Streams{Out: &out})
	if exit != 0 || err != nil || out.String() != strings.Join(args, "|") {
		t.Errorf("exit %d, error %v, stdout %q", exit, err, &out)
	}
}

// hostileArgs are words that some shell would interpret.
func hostileArgs(file string) []string {
	return []string{
		"a b", "", "it's", `"$HOME"`, "$(touch " + file + ")", "`touch " + file + "`", "; touch " + file,
		"'; touch " + file + "; '", `\'; touch ` + file + "; #", `\'\''; touch ` + file + ` \'`, `a\\b`, `\`, "!x", "!!", "%s %n", "two\nlines",
		"\xff\xfe", "*", "~", "{a,b}", "(touch " + file + ")", "\t", "-n", "é\u202e",
	}
}

func TestArgumentsThroughLoginShells(t *testing.T) {
	for _, sh := range pushtest.LoginShells {
		t.Run(sh, func(t *testing.T) {
			h := newHost(t, "exec "+sh+` -c "$SSH_ORIGINAL_COMMAND"`)
			n := h.connect()
			file := filepath.Join(t.TempDir(), "touched")
			args := hostileArgs(file)
			for _, more := range []string{"hello", `\'`} { // what each ends with
				wantArgs(t, n, append(args, more)...)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("an argument ran as a command of the host")
			}
		})
	}
}

func TestAStreamThatDidNotBeginIsAnError(t *testing.T) {
	h := newHost(t, `case $SSH_ORIGINAL_COMMAND in *stream*) echo "fish: Unknown command" >&2; exit 0;; esac`)
	_, err := h.start().Exec(t.Context(), "www", Program{Argv: []string{"echo"}}, Streams{})
	if err == nil || !strings.Contains(err.Error(), "vsnode did not begin") || !strings.Contains(err.Error(), "(exit status 0): fish: Unknown command") {
		t.Errorf("error %v", err)
	}
}

func TestCommandsThatCannotBe(t *testing.T) {
	for _, argv := range [][]string{{"a\x00b"}, {strings.Repeat("x", api.MaxArgv)}} {
		if _, err := new(Host).Exec(t.Context(), "www", Program{Argv: argv}, Streams{}); err == nil {
			t.Errorf("%d bytes are a command", len(argv[0]))
		}
	}
}

func TestExec(t *testing.T) {
	h := newHost(t, "").connect()
	t.Run("both of its outputs come, and its exit status", func(t *testing.T) {
		var out, errs bytes.Buffer
		exit, err := h.Exec(t.Context(), "www", Program{Argv: []string{"sh", "-c", "seq 100000; seq 100000 >&2; exit 5"}}, Streams{Out: &out, Errs: &errs})
		if exit != 5 || err != nil || out.Len() != 588895 || errs.String() != out.String() {
			t.Errorf("exit %d, error %v, %d and %d bytes", exit, err, out.Len(), errs.Len())
		}
	})
	t.Run("a program that cannot be run says why, fit for a terminal", func(t *testing.T) {
		var errs bytes.Buffer
		exit, err := h.Exec(t.Context(), "www", Program{Argv: []string{"/none"}}, Streams{Errs: &errs})
		if exit != 127 || err != nil || errs.String() != "fork/exec /none: no such file or directory[2J\n" {
			t.Errorf("exit %d, error %v, %q", exit, err, &errs)
		}
	})
	t.Run("a program need not read all that it could", func(t *testing.T) {
		exit, err := h.Exec(t.Context(), "www", Program{Argv: []string{"true"}}, Streams{In: zeros{}})
		if exit != 0 || err != nil {
			t.Errorf("exit %d, error %v", exit, err)
		}
	})
	t.Run("input that nobody types holds nothing up", func(t *testing.T) {
		typed, terminal := io.Pipe()
		defer terminal.Close()
		exit, err := h.Exec(t.Context(), "www", Program{Argv: []string{"true"}}, Streams{In: typed})
		if exit != 0 || err != nil {
			t.Errorf("exit %d, error %v", exit, err)
		}
	})
	t.Run("input that breaks off is not the end of it", func(t *testing.T) {
		in := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("disk on fire")))
		file := filepath.Join(t.TempDir(), "whole")
		_, err := h.Exec(t.Context(), "www", Program{Argv: []string{"sh", "-c", "cat >/dev/null; echo >" + file}}, Streams{In: in})
		if err == nil || !strings.Contains(err.Error(), "read standard input: disk on fire") {
			t.Errorf("error %v", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("the program took it for the end")
		}
	})
	t.Run("an output that takes no more ends it", func(t *testing.T) {
		_, err := h.Exec(t.Context(), "www", Program{Argv: []string{"yes"}}, Streams{Out: broken{}})
		if err == nil || !strings.Contains(err.Error(), "nobody reads") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a vsnode that dies is told", func(t *testing.T) {
		_, err := h.Exec(t.Context(), "www", Program{Argv: []string{"die"}}, Streams{})
		if err == nil || !strings.Contains(err.Error(), "web1: vsnode ended with exit status 3") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an exit status that is none is refused", func(t *testing.T) {
		_, err := h.Exec(t.Context(), "www", Program{Argv: []string{"lie"}}, Streams{})
		if err == nil || !strings.Contains(err.Error(), "exit status -1") {
			t.Errorf("error %v", err)
		}
	})
}

// zeros and broken are readers without end.
type (
	zeros  struct{}
	broken struct{}
)

func (zeros) Read(b []byte) (int, error)   { return len(b), nil }
func (broken) Write(b []byte) (int, error) { return 0, errors.New("nobody reads") }

func TestAProgramIsHungUp(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(cancel context.CancelFunc, conn *transport.Conn)
		want error
	}{
		{"when its context ends", func(cancel context.CancelFunc, _ *transport.Conn) { cancel() }, context.Canceled},
		{"when its controller is gone", func(_ context.CancelFunc, conn *transport.Conn) { conn.Close() }, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHost(t, "")
			conn := h.Dial()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			file := filepath.Join(t.TempDir(), "hung-up")
			begun := &firstWriteNotifier{notify: func() { go row.end(cancel, conn) }}
			_, err := h.over(conn).Exec(ctx, "www", Program{Argv: []string{"sh", "-c", "trap 'echo >" + file + "; exit 1' HUP; echo; while :; do sleep 0.05; done"}}, Streams{Out: begun})
			if row.want != nil && !errors.Is(err, row.want) || row.want == nil && !transport.Unreachable(err) {
				t.Errorf("error %v", err)
			}
			pushtest.WaitFor(t, "the program to be hung up", func() bool {
				_, err := os.Stat(file)
				return err == nil
			})
		})
	}
}

// firstWriteNotifier is a writer that calls notify at its first write.
type firstWriteNotifier struct {
	once   sync.Once
	notify func()
}

func (s *firstWriteNotifier) Write(b []byte) (int, error) {
	s.once.Do(s.notify)
	return len(b), nil
}

func TestLog(t *testing.T) {
	h := newHost(t, "").connect()
	var out bytes.Buffer
	if exit, err := h.Log(t.Context(), api.Log{Guest: "www", Lines: 2}, &out, nil); exit != 0 || err != nil || out.String() != "www\nwww\n" {
		t.Errorf("exit %d, error %v, %q", exit, err, &out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := h.Log(ctx, api.Log{Guest: "www", Lines: 1, Follow: true}, &firstWriteNotifier{notify: cancel}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("one that is followed: error %v", err)
	}
}

func TestImages(t *testing.T) {
	h := newHost(t, "").connect()
	dir := t.TempDir()
	t.Run("an image is exported whole", func(t *testing.T) {
		var out bytes.Buffer
		if err := h.ExportImage(t.Context(), api.ExportImage{ID: goodID}, &out); err != nil || out.String() != strings.Repeat(goodID, 10_000) {
			t.Errorf("%d bytes, error %v", out.Len(), err)
		}
	})
	t.Run("half an image is an error, after what there was", func(t *testing.T) {
		var out bytes.Buffer
		err := h.ExportImage(t.Context(), api.ExportImage{ID: "half"}, &out)
		var said *Error
		if !errors.As(err, &said) || err.Error() != "web1: export: input/output[2J error" || out.Len() != 40_000 {
			t.Errorf("%d bytes, error %v", out.Len(), err)
		}
	})
	t.Run("an image is imported, and no other", func(t *testing.T) {
		if err := h.ImportImage(t.Context(), goodID, strings.NewReader(goodID)); err != nil {
			t.Error(err)
		}
		if err := h.ImportImage(t.Context(), goodID, strings.NewReader("another")); err == nil || !strings.Contains(err.Error(), "another image") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an import that breaks off is not the end of the image", func(t *testing.T) {
		id := filepath.Join(dir, "image")
		in := io.MultiReader(strings.NewReader(id), iotest.ErrReader(errors.New("the source is gone")))
		if err := h.ImportImage(t.Context(), id, in); err == nil || !strings.Contains(err.Error(), "the source is gone") {
			t.Errorf("error %v", err)
		}
		pushtest.WaitFor(t, "the host to notice", func() bool {
			b, err := os.ReadFile(id)
			return err == nil && len(b) > 0
		})
	})
}

func TestAHostBuildsFromAStream(t *testing.T) {
	h := newHost(t, "").connect()
	const source = "docker.io/library/debian@" + goodID
	for _, row := range []struct{ name, sends, source, image, fails string }{
		{"events come before the result, cleaned", `{"kind": "progress", "message": "half\u001b[2J", "done": 1, "total": 2}` + "\n", source, goodID, ""},
		{"an event of an unknown kind is refused", `{"kind": "boo"}` + "\n", source, goodID, "unknown kind"},
		{"an event without end is refused", strings.Repeat("x", 1<<17), source, goodID, "an event of more than"},
		{"an ID that is none is refused", "", source, "../evil", "image ID"},
		{"a source that is none is refused", "", "a\nb@" + goodID, goodID, "source"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var events []api.Event
			req := api.MakeImage{Spec: api.ImageSpec{Name: row.sends, Method: "oci"}, Source: row.source}
			r, err := h.MakeImage(t.Context(), req, strings.NewReader(row.image), func(e api.Event) { events = append(events, e) })
			switch {
			case row.fails != "":
				if err == nil || !strings.Contains(err.Error(), row.fails) {
					t.Errorf("got %v, want %q", err, row.fails)
				}
			case err != nil || r.Image.ID != goodID || r.Image.Source != source:
				t.Errorf("%+v, %v", r, err)
			case len(events) != 1 || events[0].Message != "half[2J" || events[0].Total != 2:
				t.Errorf("events %+v", events)
			}
		})
	}
}
