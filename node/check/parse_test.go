package check

import (
	"os"
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

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Add("alice:100000:65536\nbob:4294967295:4294967295\n")
	f.Add("6.1.0-50-amd64")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(text) {
			if m.fstype == "" || m.dir == "" {
				t.Errorf("a mount without type or place: %+v", m)
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
