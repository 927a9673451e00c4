package procctx

import (
	"context"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A guest that changes owners and modes of an image's files keeps no copies of their
// data, until it writes to one.
func TestNewOwnersCostNoCopy(t *testing.T) {
	sp, cg := guest(t, 667, "sleep", "1000")
	const size = 1 << 20
	for _, name := range []string{"owned", "moved", "written"} {
		if err := os.WriteFile(sp.Root.Image+"/etc/"+name, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(sp.Root.Image+"/etc/owned", append([]byte("of the image"), make([]byte, size)...), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ what, command, want string }{
		{"all get an owner", "chown 33:34 /etc/owned /etc/moved /etc/written && stat -c %u:%g /etc/owned", "33:34"},
		{"the data are the image's", "head -c 12 /etc/owned", "of the image"},
		{"one moves", "busybox mv /etc/moved /tmp/moved && wc -c < /tmp/moved", "1048576"},
		{"one is written to", "echo end >> /etc/written && wc -c < /etc/written", "1048580"},
	} {
		if got, _ := output(t, p, sp, cg, row.command); got != row.want {
			t.Errorf("%s: %s: got %q, want %q", row.what, row.command, got, row.want)
		}
	}
	for _, row := range []struct {
		file string
		copy bool
	}{{"etc/owned", false}, {"tmp/moved", false}, {"etc/written", true}} {
		var st unix.Stat_t
		if err := unix.Stat(sp.Root.Upper+"/"+row.file, &st); err != nil {
			t.Fatal(err)
		}
		if copied := st.Blocks*512 >= size; copied != row.copy || st.Uid != 33 {
			t.Errorf("%s is of %d and takes %d bytes of the guest's own; copied: %v, want %v", row.file, st.Uid, st.Blocks*512, copied, row.copy)
		}
	}
}

// Where overlayfs can make no directory to work in, it mounts read-only without an error.
func TestARootThatIsReadOnlyIsWarnedOf(t *testing.T) {
	const immutable = 0x10 // FS_IMMUTABLE_FL
	for _, row := range []struct {
		name     string
		flags    int
		readOnly bool
	}{
		{"nothing can be made", immutable, true},
		{"all is as usual", 0, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			sp, cg := guest(t, 667, "sleep", "1000")
			work, err := os.Open(sp.Root.Work)
			if err != nil {
				t.Fatal(err)
			}
			defer work.Close()
			set := func(flags int) {
				if err := unix.IoctlSetPointerInt(int(work.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
					t.Fatal(err)
				}
			}
			warned := ""
			sp.Warn = func(text string) { warned += text }
			set(row.flags)
			p, err := Start(t.Context(), sp)
			set(0)
			if err != nil {
				t.Fatal(err)
			}
			_, code := output(t, p, sp, cg, "touch /etc/x")
			if code != 0 != row.readOnly || strings.Contains(warned, "read-only") != row.readOnly {
				t.Errorf("touch ends with %d, it warned %q", code, warned)
			}
		})
	}
}
