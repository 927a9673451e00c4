package guest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// The host sees the nice value of a guest's processes, and the guest cannot lower it.
func TestNiceOfAGuest(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "nice", 125, "sleep", "1000")
	g.Nice = 5
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	nice := func() int {
		t.Helper()
		st, err := h.State(g.Name)
		must(t, err)
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, st.InitPID)
		must(t, err)
		return 20 - raw // getpriority(2), "C library/kernel differences"
	}
	if n := nice(); n != 5 {
		t.Errorf("process 1 has nice %d, want 5", n)
	}
	for _, row := range []struct{ what, script, want string }{
		{"what exec starts", "cut -d' ' -f19 /proc/self/stat", "5"},
		{"a worse one may be taken", "busybox renice -n 3 $$ && cut -d' ' -f19 /proc/self/stat", "8"},
		{"a better one may not", "busybox renice -n -1 $$ 2>/dev/null || cut -d' ' -f19 /proc/self/stat", "5"},
	} {
		if out, _ := run(t, h, g.Name, "/bin/sh", "-c", row.script); out != row.want {
			t.Errorf("%s: %q, want %q", row.what, out, row.want)
		}
	}

	g.Nice = -7
	outcome, err := h.Configure(ctx, g)
	must(t, err)
	st, err := h.State(g.Name)
	must(t, err)
	if outcome != api.Changed || st.Nice != -7 || st.Runs != nil || nice() != -7 {
		t.Errorf("configured: %s, state %+v, process 1 has nice %d, want -7", outcome, st, nice())
	}
	if out, _ := run(t, h, g.Name, "busybox", "cut", "-d ", "-f19", "/proc/self/stat"); out != "-7" {
		t.Errorf("what exec starts afterwards: %q", out)
	}

	// Older vsnodes noted it only among the settings for programs that enter.
	n, err := h.readNotes(g.Name)
	must(t, err)
	n.Runs.Nice = 0
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, h.writeNotes(g.Name, cg, n))
	if st, err := h.State(g.Name); err != nil || st.Runs != nil {
		t.Errorf("started by an older vsnode: %+v, %v", st, err)
	}

	g.Nice = 0
	_, err = h.Configure(ctx, g)
	must(t, err)
	if _, err := os.Stat(h.config(g.Name) + "/nice"); !os.IsNotExist(err) {
		t.Errorf("the file nice is there still: %v", err)
	}
}

// Attributes of processes change while they run, but for those that chose their own. On
// a host without CAP_SYS_RESOURCE (in a container) limits of other users' processes are
// not vsnode's to change.
func TestAttributesOfRunningProcessesChange(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "attributes", 126, "sh", "-c",
		"sh -c 'ulimit -n 100; busybox renice -n 3 $$ >/dev/null; exec sleep 1000' & (ulimit -Sn 70; exec sleep 1000) & exec sleep 1000")
	own, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, caps, _ := strings.Cut(string(own), "CapEff:\t")
	effective, err := strconv.ParseUint(caps[:16], 16, 64)
	must(t, err)
	if effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		must(t, h.Create(ctx, g))
		must(t, h.Start(ctx, g.Name, Options{}))
		g.Limits.Ulimits = []setting.Ulimit{{Resource: "core", Soft: 0, Hard: 50}}
		if _, err := h.Configure(ctx, g); err == nil || !strings.Contains(err.Error(), "no CAP_SYS_RESOURCE on this host: restart the guest") {
			t.Errorf("error %v", err)
		}
		return
	}
	g.OOMScoreAdj = 300
	g.IONice = setting.IONice{Class: 2, Level: 6}
	g.Limits.Ulimits = []setting.Ulimit{{Resource: "core", Soft: 0, Hard: 0}, {Resource: "nofile", Soft: 80, Hard: 200}}
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	seen := func() (list []string) {
		pids, err := cg.PIDs()
		must(t, err)
		for _, pid := range pids {
			var files, core unix.Rlimit
			must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &files))
			must(t, unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &core))
			nice, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
			must(t, err)
			io, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(pid), 0)
			oom, err := os.ReadFile(linux.ProcFile(pid, "oom_score_adj"))
			must(t, err)
			list = append(list, fmt.Sprintf("files %d:%d core %d nice %d io %d:%d oom %s",
				files.Cur, files.Max, core.Max, 20-nice, io>>13, io&7, strings.TrimSpace(string(oom))))
		}
		slices.Sort(list)
		return list
	}
	const want = "files 100:100 core 0 nice 3 io 2:6 oom 300\n" +
		"files 70:200 core 0 nice 0 io 2:6 oom 300\nfiles 80:200 core 0 nice 0 io 2:6 oom 300"
	// The shells need a moment.
	for deadline := time.Now().Add(10 * time.Second); strings.Join(seen(), "\n") != want && time.Now().Before(deadline); {
		_, _ = unix.Poll(nil, 10)
	}
	if got := strings.Join(seen(), "\n"); got != want {
		t.Fatalf("started with\n%s\nwant\n%s", got, want)
	}
	g.Nice, g.OOMScoreAdj, g.IONice = 7, -100, setting.IONice{Class: 3}
	g.Limits.Ulimits = []setting.Ulimit{{Resource: "core", Soft: 0, Hard: 50}, {Resource: "nofile", Soft: 60, Hard: 90}}
	_, err = h.Configure(ctx, g)
	must(t, err)
	if got, want := strings.Join(seen(), "\n"), "files 60:90 core 50 nice 7 io 3:0 oom -100\n"+
		"files 70:90 core 50 nice 7 io 3:0 oom -100\nfiles 90:90 core 50 nice 3 io 3:0 oom -100"; got != want {
		t.Errorf("changed to\n%s\nwant\n%s", got, want)
	}
	out, _ := run(t, h, g.Name, "sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj; busybox ionice -p $$")
	if want := "60\n-100\nidle"; out != want {
		t.Errorf("a program that enters has %q, want %q", out, want)
	}
	if st, err := h.State(g.Name); err != nil || st.Runs != nil {
		t.Errorf("state %+v, %v", st, err)
	}
}
