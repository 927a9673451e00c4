package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// handed hands the controllers that the host has in version 2 to a mount of the
// test's own. They stay handed out: another test may count on them.
func handed(t *testing.T) (mount string, have []string) {
	t.Helper()
	root, err := Mount()
	must(t, err)
	for _, name := range []string{"cpu", "memory", "pids"} {
		_ = os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+name), 0) // one that is not there is missing
	}
	mount = testMount(t)
	have, err = Controllers(mount)
	must(t, err)
	return mount, have
}

// Where the controllers sit on version 1, a limit is refused with that reason;
// test/kernel has them on version 2.
func TestLimit(t *testing.T) {
	const missing = "limit %s=%s: controller %q is not in cgroup v2 on this host (it may be on cgroup v1: boot with cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1)"
	for _, row := range []struct {
		name, file, value string
		controller        string
		refusal           string // of a host that has the controller
	}{
		{"processes", "pids.max", "100", "pids", ""},
		{"memory", "memory.max", "33554432", "memory", ""},
		{"processors", "cpu.max", "20000 100000", "cpu", ""},
		{"a controller that no kernel has", "nosuch.max", "1", "nosuch", ""},
		{"a file that its controller does not have", "pids.most", "1", "pids", "limit pids.most=1: open "},
		{"a value that the kernel refuses", "pids.max", "many", "pids", "limit pids.max=many: write "},
		{"a file of the cgroup itself", "cgroup.procs", "1", "", "cgroup/cgroup.procs is vsnode's own"},
		{"a file above by way of a controller's name", "memory./../../cgroup.procs", "1", "",
			"limit memory./../../cgroup.procs=1: want a file of the cgroup, without /"},
		{"a file above", "../cgroup.procs", "1", "", "limit ../cgroup.procs=1: want a file of the cgroup, without /"},
	} {
		t.Run(row.name, func(t *testing.T) {
			mount, have := handed(t)
			c := mkdir(t, Guest(mount, "www"), "")
			want := row.refusal
			if row.controller != "" && !slices.Contains(have, row.controller) {
				want = fmt.Sprintf(missing, row.file, row.value, row.controller)
			}
			err := c.Limit(mount, row.file, row.value)
			if want != "" {
				if err == nil || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
				return
			}
			if got := read(t, c, row.file); err != nil || got != row.value {
				t.Errorf("%q, %v; want %q", got, err, row.value)
			}
		})
	}
}

// The kernel protects no more of a guest's memory than of the cgroup of all guests.
func TestMemoryOfGuestsIsProtectedTogether(t *testing.T) {
	mount, have := handed(t)
	if !slices.Contains(have, "memory") {
		above := t.TempDir() // as the kernel would have it
		for name, low := range map[string]string{"www": "4096\n", "db": "8192\n", "idle": "0\n"} {
			must(t, os.MkdirAll(above+"/"+name, 0o755))
			must(t, os.WriteFile(above+"/"+name+"/memory.low", []byte(low), 0o644))
		}
		must(t, protect(above, "memory.low"))
		if got := read(t, Dir(above), "memory.low"); got != "12288" {
			t.Errorf("%q, want 12288", got)
		}
		return
	}
	above := Dir(filepath.Dir(string(Guest(mount, "www"))))
	for _, row := range []struct{ name, file, value, together string }{
		{"www", "memory.low", "4096", "4096"},
		{"db", "memory.low", "8192", "12288"},
		{"db", "memory.min", "4096", "4096"},
		{"www", "memory.low", "0", "8192"},
		{"db", "memory.low", "max", "max"},
	} {
		c := mkdir(t, Guest(mount, row.name), "")
		must(t, c.Limit(mount, row.file, row.value))
		if got := read(t, above, row.file); got != row.together {
			t.Errorf("after %s of %s=%s together %q, want %q", row.file, row.name, row.value, got, row.together)
		}
	}
}

func TestOOMKillsAreCounted(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/memory.events", []byte("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n"), 0o644))
	if n := Dir(dir).OOMKills(); n != 3 {
		t.Errorf("%d, want 3", n)
	}
	if n := Dir(dir + "/nosuch").OOMKills(); n != 0 {
		t.Errorf("without a controller %d, want 0", n)
	}
}
