package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/node/api"
)

// A guest that was stopped to be moved runs again unless whoever asked has its files.
func TestSendLastStartsAgain(t *testing.T) {
	h := host(t)
	ctx := t.Context()
	must(t, h.Create(ctx, inMode(api.ModeNAT, "www", 120, "sleep", "1000")))
	must(t, h.Start(ctx, "www", Options{}))
	must(t, os.WriteFile(filepath.Join(h.rootDir("www"), "etc/mine"), []byte("precious\n"), 0o644))
	runs := func(when string, want bool) {
		t.Helper()
		if on, err := h.Running("www"); err != nil || on != want {
			t.Errorf("%s: it runs: %v, %v", when, on, err)
		}
	}
	last := api.SendGuest{Guest: "www", How: api.SendLast}
	lost := errors.New("the controller is gone")

	// The connection breaks while files are sent, or after that.
	if _, err := h.Send(ctx, last, strings.NewReader(""), failing{lost}, io.Discard, Options{}); !errors.Is(err, lost) {
		t.Errorf("nobody reads: %v", err)
	}
	runs("nobody reads", true)
	broken, cancel := context.WithCancel(ctx)
	if _, err := h.Send(broken, last, failing{lost}, io.Discard, whenWritten(cancel), Options{}); !errors.Is(err, lost) {
		t.Errorf("nobody commits: %v", err)
	}
	runs("nobody commits", true)

	var files bytes.Buffer
	sent, err := h.Send(ctx, last, strings.NewReader(""), &files, io.Discard, Options{})
	if err != nil || !sent.Running || sent.Image != "sha256:test" {
		t.Errorf("sent %+v, %v", sent, err)
	}
	runs("committed", false)

	// What is cut off leaves nothing, nor does a guest that cannot be made.
	whole, to := files.Bytes(), inMode(api.ModeNAT, "copy", 121, "sleep", "1000")
	for n := 0; n < len(whole); n += 1 + len(whole)/20 {
		if err := h.Receive(ctx, api.ReceiveGuest{Guest: to, Create: true}, bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("%d of %d bytes made a guest", n, len(whole))
		}
	}
	to.Network = api.Network{Mode: api.ModeNAT}
	bad := to
	bad.Context = 120
	if err := h.Receive(ctx, api.ReceiveGuest{Guest: bad, Create: true}, bytes.NewReader(whole)); err == nil || !strings.Contains(err.Error(), "context 120 is guest www's") {
		t.Errorf("a guest with another's context: %v", err)
	}
	if _, err := os.Lstat(h.data("copy")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if err := h.Receive(ctx, api.ReceiveGuest{Guest: inMode(api.ModeNAT, "www", 120, "sleep"), Create: true}, bytes.NewReader(whole)); !errors.Is(err, ErrExists) {
		t.Errorf("over a guest that is there: %v", err)
	}
	must(t, h.Receive(ctx, api.ReceiveGuest{Guest: to, Create: true}, bytes.NewReader(whole)))
	must(t, h.Start(ctx, "copy", Options{}))
	if got, _ := run(t, h, "copy", "cat", "/etc/mine"); got != "precious" && got != "precious\n" {
		t.Errorf("the copy has %q", got)
	}

	must(t, h.SetAside(ctx, "www"))
	if _, err := os.Lstat(h.config("www")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("set aside, it is there: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Read([]byte) (int, error)  { return 0, f.err }

type whenWritten func()

func (w whenWritten) Write(b []byte) (int, error) { w(); return len(b), nil }

// Of files that whoever asks knows already only the names are sent, however many there are.
func TestSendSince(t *testing.T) {
	h := host(t)
	ctx := t.Context()
	must(t, h.Create(ctx, inMode(api.ModeNAT, "www", 120, "sleep", "1000")))
	var want, index strings.Builder
	for i := range 300 {
		path := filepath.Join(h.rootDir("www"), "etc", fmt.Sprintf("a file with a long name %d", i))
		must(t, os.WriteFile(path, bytes.Repeat([]byte{byte(i)}, 1000), 0o644))
	}
	request := api.SendGuest{Guest: "www", How: api.SendFrozen, Index: true}
	read := func(b []byte, visit func(*tar.Header)) {
		z, err := zstd.NewReader(bytes.NewReader(b))
		must(t, err)
		defer z.Close()
		for r := tar.NewReader(z); ; {
			head, err := r.Next()
			if err == io.EOF {
				return
			}
			must(t, err)
			if id := head.PAXRecords[api.IDRecord]; id != "" || head.Typeflag == tar.TypeLink {
				visit(head)
			}
		}
	}
	var first, second bytes.Buffer
	sent, err := h.Send(ctx, request, strings.NewReader(""), &first, io.Discard, Options{})
	must(t, err)
	read(first.Bytes(), func(head *tar.Header) {
		fmt.Fprintf(&index, "%q %s\n", strings.TrimPrefix(head.Name, "root/"), head.PAXRecords[api.IDRecord])
		fmt.Fprintln(&want, head.Name)
	})
	must(t, os.WriteFile(filepath.Join(h.rootDir("www"), "etc/zz"), []byte("new"), 0o644))
	request.Since = sent.Begun + 60 // all of this is older
	_, err = h.Send(ctx, request, strings.NewReader(index.String()+api.IndexEnd), &second, io.Discard, Options{})
	must(t, err)
	var known strings.Builder
	read(second.Bytes(), func(head *tar.Header) {
		if head.Typeflag == tar.TypeLink && head.Linkname == head.Name {
			fmt.Fprintln(&known, head.Name)
		} else if head.Name != "root/etc/zz" {
			t.Errorf("%s is sent again", head.Name)
		}
	})
	if known.String() != want.String() {
		t.Errorf("known are\n%s", known.String())
	}
	for _, bad := range []string{"", index.String(), "nonsense\n" + api.IndexEnd} {
		if _, err := h.Send(ctx, request, strings.NewReader(bad), io.Discard, io.Discard, Options{}); err == nil {
			t.Errorf("an index of %d bytes was taken", len(bad))
		}
	}
}
