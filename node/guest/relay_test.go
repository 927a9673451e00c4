package guest

import (
	"context"
	"io"
	"os"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// TestNoSocketOfTheHostsIsHandedIn runs a program as sshd runs vsnode: with sockets
// as its streams.
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
	// A process that it leaves behind holds the streams; nobody waits for that.
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

// TestWhatAProgramWroteIsWrittenOn to somebody who reads slowly.
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
