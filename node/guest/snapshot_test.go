package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// A guest that writes to two files in turn, with much between them in the order of names: in
// a copy of one moment they are at most one byte apart.
const counting = "busybox yes | busybox head -c 16777216 >/srv/between; " +
	"busybox rm /etc/group; busybox mv /etc /etc.moved; busybox mkdir /etc; busybox chown 33:33 /srv /bin/busybox; " +
	"busybox mount -t tmpfs tmpfs /tmp; echo hidden >/tmp/hidden; " +
	"while :; do echo >>/srv/a; echo >>/srv/z; done"

func TestSnapshot(t *testing.T) {
	ctx := t.Context()
	h := host(t)
	image, err := h.Tree(t.Context(), "", "")
	must(t, err)
	must(t, os.Mkdir(image+"/srv", 0o755))
	must(t, h.Create(ctx, inMode(api.ModeNAT, "counter", 141, "sh", "-c", counting)))
	must(t, h.Start(ctx, "counter", Options{}))
	written := func() string {
		size, _ := run(t, h, "counter", "busybox", "stat", "-c", "%s", "/srv/z")
		return size
	}
	for n, _ := strconv.Atoi(written()); n < 100; n, _ = strconv.Atoi(written()) {
		if t.Context().Err() != nil {
			t.Fatal("it does not count")
		}
	}
	for _, state := range []string{"running", "stopped"} {
		t.Run(state, func(t *testing.T) {
			if state == "stopped" {
				_, err := h.Stop(ctx, "counter")
				must(t, err)
			}
			before := traces(t)
			must(t, h.Snapshot(ctx, "counter", t.TempDir(), func(root *os.File) error {
				at := func(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", root.Fd(), name) }
				size := func(name string) int64 {
					info, err := os.Stat(at(name))
					must(t, err)
					return info.Size()
				}
				if a, z := size("srv/a"), size("srv/z"); z < 100 || a-z < 0 || a-z > 1 {
					t.Errorf("the counters are %d and %d: no moment of the guest's", a, z)
				}
				for name, want := range map[string]bool{
					"bin/busybox": true, "etc.moved/passwd": true, "etc/passwd": false, "etc.moved/group": false, "tmp/hidden": false, "srv/between": true,
				} {
					if _, err := os.Stat(at(name)); (err == nil) != want {
						t.Errorf("%s: %v", name, err)
					}
				}
				info, err := os.Stat(at("srv"))
				must(t, err)
				if program, err := os.ReadFile(at("bin/busybox")); err != nil || !bytes.HasPrefix(program, []byte("\x7fELF")) {
					t.Errorf("a file of the image with another owner holds %.4q, %v", program, err)
				}
				if st := info.Sys().(*syscall.Stat_t); st.Uid != 33 || st.Gid != 33 {
					t.Errorf("the owner is %d:%d, want the guest's own ids, 33:33", st.Uid, st.Gid)
				}
				return nil
			}))
			if after := traces(t); after != before {
				t.Errorf("left: %s, was %s", after, before)
			}
			if state == "running" {
				last := written()
				for now := last; now == last; now = written() {
					if t.Context().Err() != nil {
						t.Fatal("it does not go on")
					}
				}
			}
		})
	}
	if err := h.Snapshot(ctx, "nobody", t.TempDir(), nil); !errors.Is(err, ErrNoGuest) {
		t.Errorf("a guest that is not there: %v", err)
	}
	mine := errors.New("mine")
	if err := h.Snapshot(ctx, "counter", t.TempDir(), func(*os.File) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("an error of use: %v", err)
	}
	if err := h.Snapshot(ctx, "counter", filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("a directory that is not there was taken")
	}
}
