package procctx

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// As long as a process is there, whoever started it, process 1 of ours stays; it ends
// with the status of its program.
func TestReaper(t *testing.T) {
	for i, row := range []struct {
		name string
		argv []string
		says string
		ends unix.WaitStatus
	}{
		{"a program in PATH", []string{"sh", "-c", "echo $0 $PPID; exit 3", "it"}, "it 1", 3 << 8},
		{"a program by its path", []string{"/bin/sh", "-c", "exit 0"}, "", 0},
		{"a program that a signal ends", []string{"sh", "-c", "kill -9 $$"}, "", (128 + 9) << 8},
		{"no such program", []string{"nothing"}, "", 127 << 8},
		{"what the program leaves behind", []string{"sh", "-c", "(sleep 0.2; echo end) & exit 4"}, "end", 4 << 8},
		{"orphans of orphans", []string{"sh", "-c", "(sh -c '(sleep 0.2; echo end) & exit' & exit) & exit 0"}, "end", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			sp, _ := guest(t, 3100+i, row.argv...)
			sp.Reaper = true
			p, err := Start(t.Context(), sp)
			if err != nil {
				t.Fatal(err)
			}
			how, ended, err := p.End(t.Context(), 20*time.Second)
			if err != nil || !ended || how != row.ends {
				t.Errorf("ended %v, %#x, %v", ended, how, err)
			}
			b, err := os.ReadFile(sp.Console.Name())
			if err != nil || strings.TrimSpace(string(b)) != row.says {
				t.Errorf("it said %q, %v", b, err)
			}
		})
	}
}

func TestReaperWaitsForWhoEntered(t *testing.T) {
	sp, cg := guest(t, 3110, "true")
	sp.Reaper, sp.Argv = true, []string{"sleep", "0.3"}
	p, err := Start(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	if out, code := output(t, p, sp, cg, "sleep 0.8; cat /proc/1/comm"); out != "init" || code != 0 {
		t.Errorf("%q, %d", out, code)
	}
	if _, ended, err := p.End(t.Context(), 20*time.Second); !ended || err != nil {
		t.Errorf("it stays: %v", err)
	}
}

// What process 1 of ours costs, and what its guest can do with it.
func TestReaperIsSmallAndSealed(t *testing.T) {
	sp, cg := guest(t, 3111, "sleep", "1000")
	sp.Reaper, sp.Scope = true, false // a Landlock domain keeps out who entered
	p, err := Start(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	// Its first page is its own with its first instruction; a stack and a page more, depending on the kernel.
	// The kernel reports no first page: it is looked for.
	var kb int
	for end := time.Now().Add(10 * time.Second); kb == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(linux.ProcFile(p.PID, "smaps_rollup"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nPrivate_Dirty:")
		if kb, err = strconv.Atoi(strings.Fields(rest)[0]); err != nil {
			t.Fatal(err)
		}
	}
	if kb == 0 || kb > 16 {
		t.Errorf("it has %d kB of its own", kb)
	}
	for command, why := range map[string]string{
		"echo x >/proc/1/exe":                   "Permission denied",
		"busybox chmod 777 /proc/1/exe":         "Operation not permitted",
		"busybox dd if=/bin/sh of=/proc/1/exe":  "Permission denied",
		"busybox stat -L -c %a:%s /proc/1/exe":  "555:",
		"ls /proc/1/fd":                         "0\n1\n2",
		"busybox tr '\\0' ' ' </proc/1/cmdline": "init sleep 1000",
	} {
		if out, _ := output(t, p, sp, cg, command); !strings.Contains(out, why) {
			t.Errorf("%s: %s", command, out)
		}
	}
}
