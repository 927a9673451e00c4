package linux

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	const text = `27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,errors=continue
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw
50 27 0:40 / /mnt/with\040space\134and\011more rw - tmpfs  rw
`
	got, err := ParseMounts(text)
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{
		{27, "/", "ext4", "/dev/vda", []string{"rw", "errors=continue"}},
		{41, "/sys/fs/cgroup/unified", "cgroup2", "cgroup2", []string{"rw"}},
		{50, "/mnt/with space\\and\tmore", "tmpfs", "", []string{"rw"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, bad := range []string{"broken\n", "27 1 254:0 / /\n", "a - b\n"} {
		if _, err := ParseMounts(bad); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

func FuzzParseMounts(f *testing.F) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Add("50 27 0:40 / /a\\040b rw shared:1 - tmpfs x rw")
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := ParseMounts(text)
		if err == nil && len(mounts) != len(strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")) && text != "" {
			t.Errorf("%d mounts in %q", len(mounts), text)
		}
	})
}
