package cgroup

import (
	"errors"
	"testing"

	"github.com/vsfleet/vsfleet/internal/linux"
)

func TestMountIn(t *testing.T) {
	const (
		version1 = `31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
`
		unified = "35 24 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
		beside  = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		other   = "29 23 0:30 / /mnt/my\\040cgroups rw - cgroup2 none rw\n"
	)
	for _, row := range []struct {
		name, table, want string // want "": none
	}{
		{"version 2 alone", unified, "/sys/fs/cgroup"},
		{"hybrid", version1 + beside, "/sys/fs/cgroup/unified"},
		{"somewhere else beside version 1", version1 + other, "/mnt/my cgroups"},
		{"somewhere else too, and earlier", other + unified, "/sys/fs/cgroup"},
		{"somewhere else too on a hybrid host, and earlier", other + version1 + beside, "/sys/fs/cgroup/unified"},
		{"both usual places", beside + unified, "/sys/fs/cgroup"},
		{"hidden by what was mounted upon it", unified + version1 + beside, "/sys/fs/cgroup/unified"},
		{"mounted upon what was there", version1 + unified, "/sys/fs/cgroup"},
		{"version 1 only", version1, ""},
		{"no cgroups at all", "22 1 254:0 / / rw - ext4 /dev/vda rw\n", ""},
		{"an empty table", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			mounts, err := linux.ParseMounts(row.table)
			must(t, err)
			got, err := MountIn(mounts)
			if got != row.want || errors.Is(err, ErrNotMounted) != (row.want == "") {
				t.Errorf("%q, %v; want %q", got, err, row.want)
			}
		})
	}
}

func TestMountAgreesWithTheTable(t *testing.T) {
	mounts, err := linux.Mounts()
	must(t, err)
	want, err := MountIn(mounts)
	must(t, err)
	if got, err := Mount(); err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
