package guest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

func file(path, content string) api.File {
	return api.File{Path: path, Content: []byte(content), Digest: api.FileDigest([]byte(content)), Mode: 0o644, Owner: "root:root"}
}

// differing returns what a guest's files lack, one per line.
func differing(t *testing.T, h *Host, name string, files ...api.File) string {
	t.Helper()
	a, err := h.Files(t.Context(), api.FilesRequest{Guests: []api.GuestFiles{{Guest: name, Files: files}}})
	must(t, err)
	if len(a.Guests) != 1 {
		t.Fatalf("answer %+v", a)
	}
	lines := []string{}
	for _, f := range a.Guests[0].Files {
		lines = append(lines, f.Path+": "+f.Differs)
	}
	if p := a.Guests[0].Problem; p != "" {
		lines = append(lines, p)
	}
	return strings.Join(lines, "\n")
}

// A stopped guest finds the files when it starts, and a running one at once; the guest
// and the host see the same.
func TestFilesOfAGuest(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	must(t, h.Create(ctx, inMode(api.ModeNAT, "files", 140, "sleep", "1000")))
	motd, deep := file("/etc/motd", "hello\n"), file("/srv/a/b/deep.conf", "x = 1\n")
	deep.Mode, deep.Owner = 0o4640, "www:7"
	passwd := file("/etc/passwd", "root:x:0:0::/:/bin/sh\nwww:x:33:33::/:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n") // is in the image too
	all := []api.File{motd, deep, passwd}

	if got, want := differing(t, h, "files", all...), "/etc/motd: it is not there\n/srv/a/b/deep.conf: it is not there\n/etc/passwd: content"; got != want {
		t.Errorf("before: %s", got)
	}
	for _, want := range []api.Outcome{api.Changed, api.Unchanged} {
		if outcome, err := h.Provide(ctx, "files", all); err != nil || outcome != want {
			t.Errorf("%v, %v, want %v", outcome, err, want)
		}
	}
	must(t, h.Start(ctx, "files", Options{}))
	look := func(name string) string {
		got, _ := run(t, h, "files", "busybox", "stat", "-c", "%a %u:%g %n", name)
		return got
	}
	if got := look("/srv/a/b/deep.conf"); got != "4640 33:7 /srv/a/b/deep.conf" {
		t.Errorf("inside: %s", got)
	}
	if got := look("/srv/a/b"); got != "755 0:0 /srv/a/b" {
		t.Errorf("inside: %s", got)
	}
	if got := differing(t, h, "files", all...); got != "" {
		t.Errorf("started: %s", got)
	}

	// While it runs.
	motd = file("/etc/motd", "hello again\n")
	late := file("/srv/late/x", "")
	late.Owner = "bob:0"
	if got := differing(t, h, "files", motd, late, deep); got != "/etc/motd: content\n/srv/late/x: it is not there" {
		t.Errorf("changed: %s", got)
	}
	if outcome, err := h.Provide(ctx, "files", []api.File{motd, late, deep}); err != nil || outcome != api.Changed {
		t.Errorf("%v, %v", outcome, err)
	}
	if got := look("/srv/late/x"); got != "644 1000:0 /srv/late/x" {
		t.Errorf("inside: %s", got)
	}
	if got, _ := run(t, h, "files", "cat", "/etc/motd"); got != "hello again" {
		t.Errorf("inside: %s", got)
	}
	if got, code := run(t, h, "files", "busybox", "chown", "33", "/etc/motd"); code != 0 {
		t.Errorf("its root cannot change it: %s", got)
	}
	if got := differing(t, h, "files", motd); got != "/etc/motd: owner 33:0 → root:root" {
		t.Errorf("changed inside: %s", got)
	}
	for _, beside := range []string{"/etc", "/srv/a/b", "/srv/late"} {
		if got, _ := run(t, h, "files", "busybox", "ls", "-a", beside); strings.Contains(got, "vsfleet") {
			t.Errorf("left over in %s: %s", beside, got)
		}
	}
	a, err := h.Files(ctx, api.FilesRequest{Contents: true, Guests: []api.GuestFiles{
		{Guest: "files", Files: []api.File{file("/etc/motd", "new"), {Path: "/srv/late/x", Owner: "0:0", Secret: true}}}, {Guest: "nobody"},
	}})
	if err != nil || len(a.Guests) != 1 || string(a.Guests[0].Files[0].Content) != "hello again\n" || a.Guests[0].Files[1].Content != nil {
		t.Errorf("contents: %+v, %v", a, err)
	}
}

// A path of a guest never leads out of it, and never to a file that would make us wait.
func TestFilesStayInTheGuest(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.Mkdir(outside, 0o755))
	must(t, h.Create(ctx, inMode(api.ModeNAT, "inside", 141, "sleep", "1000")))
	traps := "ln -s " + outside + " /out; ln -s ../../../../.." + outside + "/f /etc/link; mkdir /etc/dir /ram /tmp/ok; mkfifo /etc/pipe; ln -s /proc/1/root/etc /magic; mount -t tmpfs none /ram; ln -s /tmp/ok /ok"
	for _, running := range []bool{true, false} {
		if running {
			must(t, h.Start(ctx, "inside", Options{}))
			if got, code := run(t, h, "inside", "busybox", "sh", "-c", traps); code != 0 {
				t.Fatalf("set traps: %s", got)
			}
		} else {
			_, err := h.Stop(ctx, "inside")
			must(t, err)
		}
		for _, row := range []struct{ name, path, err string }{
			{"a directory that is a link out", "/out/f", "/out/f: /out is a link that leads nowhere"},
			{"a file that is a link out", "/etc/link", ""},
			{"a file that is a pipe", "/etc/pipe", ""},
			{"a directory in its place", "/etc/dir", "/etc/dir: a directory is in its place: remove it first"},
			{"a magic link", "/magic/f", "/magic/f: "},
			{"a link inside", "/ok/f", ""},
		} {
			_, err := h.Provide(ctx, "inside", []api.File{file(row.path, "trapped")})
			if row.err == "" && err != nil || row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err)) {
				t.Errorf("%s, running %v: %v", row.name, running, err)
			}
		}
		if running {
			if _, err := h.Provide(ctx, "inside", []api.File{file("/ram/f", "x")}); err == nil || !strings.Contains(err.Error(), "another filesystem is mounted there") {
				t.Errorf("below a mount of the guest: %v", err)
			}
		}
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
		t.Errorf("outside: %v, %v", list, err)
	}
	if _, err := h.Provide(ctx, "inside", []api.File{{Path: "/etc/x", Digest: api.FileDigest([]byte("a")), Content: []byte("b"), Owner: "0:0"}}); err == nil {
		t.Error("content that is not what the digest says was written")
	}
	nobody := file("/etc/x", "")
	nobody.Owner = "nobody-there:0"
	if _, err := h.Provide(ctx, "inside", []api.File{nobody}); err == nil || !strings.Contains(err.Error(), `there is no user "nobody-there" in it`) {
		t.Errorf("an unknown owner: %v", err)
	}
}

// A running guest does what its files ask for, once for several files, and the next
// call does what a killed one left undone.
func TestCommandsOfChangedFiles(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	must(t, h.Create(ctx, inMode(api.ModeNAT, "told", 142, "sleep", "1000")))
	with := func(path, content string, o api.OnChange) api.File {
		f := file(path, content)
		f.OnChange = o
		return f
	}
	reload := api.OnChange{Command: []string{"sh", "-c", "echo told >> /etc/log"}}
	restart := api.OnChange{Restart: true}
	count := func() int {
		got, _ := run(t, h, "told", "cat", "/etc/log")
		return strings.Count(got, "told")
	}
	// Stopped: nothing is to be notified.
	_, err := h.Provide(ctx, "told", []api.File{with("/etc/a", "1", reload)})
	must(t, err)
	must(t, h.Start(ctx, "told", Options{}))
	if n := count(); n != 0 {
		t.Errorf("told %d times before it ran", n)
	}
	_, err = h.Provide(ctx, "told", []api.File{with("/etc/a", "2", reload), with("/etc/b", "2", reload), with("/etc/c", "2", restart)})
	must(t, err)
	if n := count(); n != 1 {
		t.Errorf("told %d times of two files", n)
	}
	pending := func() []api.OnChange {
		a, err := h.Files(ctx, api.FilesRequest{Guests: []api.GuestFiles{{Guest: "told"}}})
		must(t, err)
		return a.Guests[0].Pending
	}
	if p := pending(); len(p) != 1 || !p[0].Restart {
		t.Errorf("pending %+v, want the restart", p)
	}
	// A command that fails remains to be done.
	fails := api.OnChange{Command: []string{"sh", "-c", "test -e /etc/ok && exit 0; echo first; echo no such thing >&2; exit 3"}}
	if _, err := h.Provide(ctx, "told", []api.File{with("/etc/d", "1", fails)}); err == nil || !strings.Contains(err.Error(), "exit status 3: no such thing") {
		t.Errorf("a command that fails: %v", err)
	}
	if got := differing(t, h, "told", with("/etc/d", "1", fails)); got != "" || len(pending()) != 2 {
		t.Errorf("%s, pending %+v", got, pending())
	}
	run(t, h, "told", "busybox", "touch", "/etc/ok")
	if outcome, err := h.Provide(ctx, "told", nil); err != nil || outcome != api.Changed || len(pending()) != 1 {
		t.Errorf("%v, %v, pending %+v", outcome, err, pending())
	}
	_, err = h.Stop(ctx, "told")
	must(t, err)
	if p := pending(); p != nil {
		t.Errorf("pending %+v after the stop", p)
	}
}

// An init may move its root to a filesystem that never answers. We wait for it no
// longer than the deadline.
func TestFilesOfAGuestThatDoesNotAnswer(t *testing.T) {
	h := host(t)
	must(t, h.Create(t.Context(), inMode(api.ModeNAT, "mute", 143, "sleep", "1000")))
	must(t, h.Start(t.Context(), "mute", Options{}))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	hold := make(chan struct{})
	defer close(hold)
	err := h.Hold(ctx, "mute", "look into", func(g *Guest) error {
		_, err := inRoot(ctx, g, func(guestRoot) (struct{}, error) { <-hold; return struct{}{}, nil })
		return err
	})
	if err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
}

// A directory of the image can be moved like one of the guest's own, and is complete at
// its new place after a restart, too.
func TestDirectoriesOfTheImageCanBeRenamed(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	must(t, h.Create(ctx, inMode(api.ModeNAT, "moves", 144, "sleep", "1000")))
	must(t, h.Start(ctx, "moves", Options{}))
	must(t, h.Hold(ctx, "moves", "rename in", func(g *Guest) error {
		_, err := inRoot(ctx, g, func(r guestRoot) (struct{}, error) {
			at := int(r.Root.Fd())
			return struct{}{}, unix.Renameat(at, "etc", at, "moved")
		})
		return err
	}))
	for _, state := range []string{"moved", "restarted"} {
		if got, code := run(t, h, "moves", "cat", "/moved/passwd"); code != 0 || !strings.Contains(got, "root:x:0:0") {
			t.Errorf("%s: %s", state, got)
		}
		if got, code := run(t, h, "moves", "busybox", "ls", "/etc"); code == 0 {
			t.Errorf("%s: it is in its old place as well: %s", state, got)
		}
		if state == "moved" {
			_, err := h.Stop(ctx, "moves")
			must(t, err)
			must(t, h.Start(ctx, "moves", Options{}))
		}
	}
}
