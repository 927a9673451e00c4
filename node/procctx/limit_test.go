package procctx

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/cgroup"
)

// TestLimitsHold needs cgroup v2 with controllers, as test/kernel has it. Where
// they sit on version 1, a limit has to be refused with that reason.
func TestLimitsHold(t *testing.T) {
	mount, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(mount + "/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		limits []string // FILE=VALUE
		check  func(t *testing.T, cg cgroup.Dir, inside func(command string) (string, int))
	}{
		{"a program beyond the memory is killed, the guest is not", []string{"memory.max=33554432", "memory.swap.max=0"},
			func(t *testing.T, cg cgroup.Dir, inside func(string) (string, int)) {
				if out, code := inside("busybox dd if=/dev/zero of=/dev/null bs=64M count=1"); code != 137 {
					t.Errorf("exit status %d: %s", code, out)
				}
				if n := counter(t, cg, "memory.events", "oom_kill"); n != 1 {
					t.Errorf("%d processes were killed for memory", n)
				}
				if out, code := inside("echo alive"); code != 0 || out != "alive" {
					t.Errorf("afterwards: %q, %d", out, code)
				}
			}},
		{"files in memory count", []string{"memory.max=33554432", "memory.swap.max=0"},
			func(t *testing.T, cg cgroup.Dir, inside func(string) (string, int)) {
				if out, code := inside("busybox dd if=/dev/zero of=/dev/shm/big bs=1M count=64"); code == 0 {
					t.Errorf("64 MiB in 32: %s", out)
				}
			}},
		{"no more processes than allowed", []string{"pids.max=8"},
			func(t *testing.T, cg cgroup.Dir, inside func(string) (string, int)) {
				out, _ := inside("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 >/dev/null 2>&1 & done; echo done")
				if !strings.Contains(out, "fork") {
					t.Errorf("a shell that starts ten says %q", out)
				}
				if n := counter(t, cg, "pids.events", "max"); n == 0 {
					t.Error("none was refused")
				}
			}},
		{"a fifth of a processor", []string{"cpu.max=20000 100000"},
			func(t *testing.T, cg cgroup.Dir, inside func(string) (string, int)) {
				before, begun := counter(t, cg, "cpu.stat", "usage_usec"), time.Now()
				inside("busybox timeout 2 sh -c 'while :; do :; done'")
				used := time.Duration(counter(t, cg, "cpu.stat", "usage_usec")-before) * time.Microsecond
				// One period may have been had before the clock ran.
				if most := time.Since(begun)/5 + 40*time.Millisecond; used > most || used < 20*time.Millisecond {
					t.Errorf("used %v in %v", used, time.Since(begun))
				}
			}},
		{"the guest cannot lift them", []string{"pids.max=100"},
			func(t *testing.T, cg cgroup.Dir, inside func(string) (string, int)) {
				for _, file := range []string{"pids.max", "memory.max", "cpu.max"} {
					if out, code := inside("echo max >/sys/fs/cgroup/" + file); code == 0 {
						t.Errorf("%s was written: %s", file, out)
					}
				}
			}},
		{"the guest divides its share", []string{"pids.max=100", "memory.max=268435456"},
			func(t *testing.T, cg cgroup.Dir, inside func(string) (string, int)) {
				// As systemd does it: nothing stays in the outermost.
				out, code := inside(`cd /sys/fs/cgroup; busybox mkdir all part
					while read p; do echo $p >all/cgroup.procs; done <cgroup.procs
					echo "+pids +memory" >cgroup.subtree_control && echo 5 >part/pids.max && cat part/pids.max`)
				if code != 0 || out != "5" {
					t.Errorf("%q, %d", out, code)
				}
				if out, code := inside("cat /proc/self/cgroup"); code != 0 || out != "0::/all" {
					t.Errorf("entered at %q", out)
				}
			}},
	} {
		t.Run(row.name, func(t *testing.T) {
			sp, cg := guest(t, 671, "sleep", "1000")
			for _, l := range row.limits {
				file, value, _ := strings.Cut(l, "=")
				controller, _, _ := strings.Cut(file, ".")
				err := cg.Limit(mount, file, value)
				if !strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+controller+" ") {
					if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("controller %q is not in cgroup v2", controller)) {
						t.Errorf("without the controller: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			p, err := Start(context.Background(), sp)
			if err != nil {
				t.Fatal(err)
			}
			row.check(t, cg, func(command string) (string, int) {
				t.Helper()
				return output(t, p, sp, cg, command)
			})
		})
	}
}

// counter reads one line "KEY NUMBER" of a cgroup's file.
func counter(t *testing.T, cg cgroup.Dir, file, key string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(string(cg), file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), key+" "); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %s", key, b)
	return 0
}
