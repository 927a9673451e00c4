package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

func readForward(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(forwardSysctl)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// snapshot holds all that a lab could leave behind in the tests' namespaces.
type snapshot struct {
	mounts, links, tables, forward, run string
}

func takeSnapshot(t testing.TB) snapshot {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot{mounts: string(mounts), forward: readForward(t)}
	for _, l := range links {
		s.links += l.Attrs().Name + "\n"
	}
	nft, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := nft.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		s.tables += table.Name + "\n"
	}
	s.run = listing(t, "/run")
	return s
}

func listing(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names strings.Builder
	for _, e := range entries {
		names.WriteString(e.Name() + "\n")
	}
	return names.String()
}

// compare reports whatever is left of the lab called name. Its directory is
// checked by labDir.
func (s snapshot) compare(t testing.TB, name string) {
	t.Helper()
	if diff := cmp.Diff(s, takeSnapshot(t), cmp.AllowUnexported(snapshot{})); diff != "" {
		t.Errorf("the lab has left:\n%s", diff)
	}
	g, err := labCgroup(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(g)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", g, err)
	}
	// Every host's init is this program; the processes that it started ended with it.
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range exes {
		pid, _ := strconv.Atoi(strings.Split(exe, "/")[2])
		st, err := os.Stat(exe)
		if err == nil && os.SameFile(st, self) && pid != os.Getpid() && pid != os.Getppid() {
			t.Errorf("process %d is left", pid)
		}
	}
}
