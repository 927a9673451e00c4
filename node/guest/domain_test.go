package guest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// A page of the page cache that a guest's kernel bug lets it write to is seen by all that have the
// same file (CVE-2022-0847, CVE-2026-31431): guests of one trust domain, and nobody else.
func TestTrustDomainsSharePagesWithNobody(t *testing.T) {
	h := host(t)
	dir, err := h.Tree(t.Context(), "", "")
	must(t, err)
	must(t, os.MkdirAll(dir+"/srv", 0o755))
	must(t, os.WriteFile(dir+"/srv/large", []byte(strings.Repeat("large ", 200_000)), 0o644))
	store, img := described(t, h)
	domains := map[string]string{"a1": "a", "a2": "a", "b": "b", "none1": "", "none2": ""}
	xid := 160
	for name, domain := range domains {
		g := inMode(api.ModeNAT, name, xid, "sleep", "1000")
		g.Image, g.TrustDomain, g.Network.Forwards = img.ID, domain, nil
		xid++
		configured(t, h, g, nil)
		must(t, h.Start(t.Context(), name, Options{}))
	}
	file := func(name string) *os.File {
		st, err := h.State(name)
		must(t, err)
		f, err := os.Open(fmt.Sprintf("/proc/%d/root/srv/large", st.InitPID))
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	for _, reader := range []string{"a1", "b", "none1"} {
		for name := range domains { // those of earlier rows are in memory
			drop(t, file(name))
		}
		run(t, h, reader, "sh", "-c", "cat /srv/large > /dev/null")
		for name, domain := range domains {
			if seen, want := resident(t, file(name)), domain == domains[reader]; seen != want {
				t.Errorf("%s has read it: in the memory of %s: %v, want %v", reader, name, seen, want)
			}
		}
	}
	// Another trust domain is one of the next start.
	b, err := h.Read("b")
	must(t, err)
	b.TrustDomain = "a"
	_, err = h.Configure(t.Context(), b.Guest)
	must(t, err)
	if st, err := h.State("b"); err != nil || st.Runs == nil || st.Runs.TrustDomain != "b" {
		t.Errorf("it runs as %+v, %v", st.Runs, err)
	}
	must(t, h.Restart(t.Context(), "b", Options{}))
	drop(t, file("b"))
	run(t, h, "a1", "sh", "-c", "cat /srv/large > /dev/null")
	if !resident(t, file("b")) {
		t.Error("it is not in its new trust domain")
	}
	if c, err := store.Check(t.Context(), func(string) ([]string, error) { return nil, nil }); err != nil || len(c.Damaged) > 0 {
		t.Errorf("check: %+v, %v", c, err)
	}
}

// drop removes a file from the page cache.
func drop(t *testing.T, f *os.File) {
	t.Helper()
	must(t, f.Sync())
	must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	if resident(t, f) {
		t.Fatalf("%s is still in memory", f.Name())
	}
}

// resident reports whether a page in the middle of a file is in the page cache.
func resident(t *testing.T, f *os.File) bool {
	t.Helper()
	const middle, size = 128 << 12, 1 << 12
	b, err := unix.Mmap(int(f.Fd()), middle, size, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	defer func() { must(t, unix.Munmap(b)) }()
	var pages [1]byte
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), size, uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	return pages[0]&1 != 0
}
