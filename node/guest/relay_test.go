package guest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// TestNoSocketOfTheHostsIsHandedIn runs a program as sshd runs vsnode: with sockets as
// its streams.
func TestNoSocketOfTheHostsIsHandedIn(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "relayed", 125, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	var ours, theirs [2]*os.File
	for i := range ours {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		ours[i], theirs[i] = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
		defer ours[i].Close()
	}
	in, out, errs := os.Stdin, os.Stdout, os.Stderr
	os.Stdin, os.Stdout, os.Stderr = theirs[0], theirs[0], theirs[1]
	_, err := ours[0].WriteString("what is typed\n")
	must(t, err)
	must(t, unix.Shutdown(int(ours[0].Fd()), unix.SHUT_WR))
	// A process that the program leaves behind holds the streams; we do not wait for
	// it.
	code, err := h.Run(ctx, g.Name, Program{Argv: []string{"sh", "-c",
		`sleep 1000 & for fd in 0 1 2; do busybox readlink /proc/$$/fd/$fd; done; cat; echo wrong >&2; exit 7`}})
	os.Stdin, os.Stdout, os.Stderr = in, out, errs
	theirs[0].Close()
	theirs[1].Close()
	if err != nil || code != 7 {
		t.Errorf("exit status %d, %v", code, err)
	}
	for i, want := range []string{`^pipe:.*\npipe:.*\npipe:.*\nwhat is typed\n$`, `^wrong\n$`} {
		got, err := io.ReadAll(ours[i])
		if err != nil || !regexp.MustCompile(want).Match(got) {
			t.Errorf("stream %d: %q, %v, want %s", i+1, got, err, want)
		}
	}
}

// TestAProgramOverStreamsOfSomebodyElse runs programs as a controller's stream does.
func TestAProgramOverStreamsOfSomebodyElse(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "afar", 126, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	sh := func(script string) Program { return Program{Argv: []string{"sh", "-c", script}} }
	t.Run("by pipes", func(t *testing.T) {
		var out, errs bytes.Buffer
		code, err := h.RunOver(ctx, g.Name, sh("sleep 1000 & cat; echo wrong >&2; exit 7"), Streams{In: strings.NewReader("what is typed"), Out: &out, Errs: &errs})
		if err != nil || code != 7 || out.String() != "what is typed" || errs.String() != "wrong\n" {
			t.Errorf("exit status %d, %v, %q, %q", code, err, &out, &errs)
		}
	})
	t.Run("by a terminal of the guest's", func(t *testing.T) {
		var out bytes.Buffer
		sizes := make(chan api.Size, 1)
		typed, keys := io.Pipe()
		defer keys.Close()
		go func() {
			sizes <- api.Size{Rows: 30, Columns: 100}
			io.WriteString(keys, "go on\n")
		}()
		like := &Terminal{Type: "vt220", Size: api.Size{Rows: 24, Columns: 80}, Sizes: sizes}
		code, err := h.RunOver(ctx, g.Name, sh("tty; echo $TERM; until busybox stty size | busybox grep -x '30 100'; do :; done; read x; echo got $x; exit 5"), Streams{In: typed, Out: &out, Terminal: like})
		// The terminal echoes input as it arrives: between any two lines.
		text := strings.Replace(out.String(), "go on\r\n", "", 1)
		if want := regexp.MustCompile(`^/dev/pts/\d+\r\nvt220\r\n30 100\r\ngot go on\r\n$`); err != nil || code != 5 || !want.MatchString(text) {
			t.Errorf("exit status %d, %v, %q", code, err, &out)
		}
	})
	t.Run("a program that cannot be run has a status", func(t *testing.T) {
		_, err := h.RunOver(ctx, g.Name, Program{Argv: []string{"/none"}}, Streams{In: strings.NewReader(""), Out: io.Discard, Errs: io.Discard})
		if err == nil || NotRunStatus(err) != 127 {
			t.Errorf("%v: %d", err, NotRunStatus(err))
		}
		_, err = h.RunOver(ctx, "nobody", Program{}, Streams{In: strings.NewReader(""), Out: io.Discard, Errs: io.Discard})
		if !errors.Is(err, ErrNoGuest) || NotRunStatus(err) != 5 {
			t.Errorf("%v: %d", err, NotRunStatus(err))
		}
	})
	t.Run("input that breaks off is not the end of it", func(t *testing.T) {
		in := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF))
		var out bytes.Buffer
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		code, err := h.RunOver(ctx, g.Name, sh("cat >/dev/null; echo all of it"), Streams{In: in, Out: &out, Errs: io.Discard})
		if err != nil || code != 128+int(unix.SIGHUP) || out.Len() > 0 {
			t.Errorf("exit status %d, %v, %q", code, err, &out)
		}
	})
}

// TestWhatAProgramWroteIsWrittenOn has a slow reader.
func TestWhatAProgramWroteIsWrittenOn(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	slow, to, err := os.Pipe()
	must(t, err)
	defer slow.Close()
	const all = 200 << 10
	c := carry(r, to)
	go func() {
		w.Write(make([]byte, all)) // and then keeps its end open, as a daemon would
	}()
	defer w.Close()
	read := make(chan int)
	go func() {
		n, buf := 0, make([]byte, 4<<10)
		for n < all {
			m, err := slow.Read(buf)
			if err != nil {
				break
			}
			n += m
			time.Sleep(time.Millisecond)
		}
		read <- n
	}()
	time.Sleep(5 * time.Millisecond)
	c.drain(context.Background())
	to.Close()
	if n := <-read; n != all {
		t.Errorf("%d of %d bytes came", n, all)
	}
}
