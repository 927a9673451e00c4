package check

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	got := parseMounts(`36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
broken
`)
	want := []mount{
		{"/mnt two", "ext3", []string{"rw", "errors=continue"}},
		{"/sys/fs/cgroup", "cgroup2", []string{"rw"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseListeners(t *testing.T) {
	got := parseListeners(tcpHeader +
		"   0: 00000000:0016 00000000:0000 0A 0:0 0:0 0 0 0 11 1\n" + // wildcard
		"   1: 0100007F:0019 00000000:0000 0A 0:0 0:0 0 0 0 12 1\n" + // 127.0.0.1
		"   2: 00000000:0017 00000000:0000 07 0:0 0:0 0 0 0 13 1\n" + // not listening
		"   3: 00000000000000000000000000000000:0050 0:0 0A 0:0 0:0 0 0 0 14 1\n")
	want := []listener{{"0.0.0.0:22", "11"}, {"[::]:80", "14"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(listener{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"/proc/self/mountinfo", "/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("alice:100000:65536\nbob:4294967295:4294967295\n")
	f.Add("6.1.0-50-amd64")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(text) {
			if m.fstype == "" || m.dir == "" {
				t.Errorf("a mount without type or place: %+v", m)
			}
		}
		for _, l := range parseListeners(text) {
			if !strings.Contains(l.address, ":") || l.inode == "" {
				t.Errorf("half a listener: %+v", l)
			}
		}
		for _, r := range parseIDRanges(text) {
			if r.last < r.first {
				t.Errorf("a range that ends before it begins: %+v", r)
			}
		}
		if major, minor, ok := parseRelease(text); ok && (major < 0 || minor < 0) {
			t.Errorf("%q is %d.%d", text, major, minor)
		}
	})
}
