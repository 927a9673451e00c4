package stat

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// cgroup2 finds where cgroup v2 is mounted. These tests need root and it.
func cgroup2(tb testing.TB) string {
	tb.Helper()
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1]
		}
	}
	tb.Fatal("this test needs cgroup v2 mounted")
	return ""
}

// tree makes a cgroup for the test; it is removed, with all in it, at its end.
func tree(tb testing.TB) (root, name string) {
	tb.Helper()
	root = cgroup2(tb)
	name = fmt.Sprintf("vsnode-stat-test-%d", os.Getpid())
	top := filepath.Join(root, name)
	if err := os.Mkdir(top, 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		kill(tb, top)
		removeCgroup(tb, top)
	})
	return root, name
}

// kill ends everything in a cgroup and waits until it has.
func kill(tb testing.TB, cgroup string) {
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.kill"), []byte("1"), 0); err != nil {
		tb.Error(err)
	}
	events, err := os.Open(filepath.Join(cgroup, "cgroup.events"))
	if err != nil {
		tb.Error(err)
		return
	}
	defer events.Close()
	text := make([]byte, 100)
	for {
		n, err := events.ReadAt(text, 0)
		if err != nil && err != io.EOF {
			tb.Error(err)
			return
		}
		if strings.Contains(string(text[:n]), "populated 0") {
			return
		}
		poll := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, 10000); err != nil && err != unix.EINTR {
			tb.Error(err)
			return
		}
	}
}

func removeCgroup(tb testing.TB, top string) {
	entries, err := os.ReadDir(top)
	if err != nil {
		tb.Error(err)
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroup(tb, filepath.Join(top, e.Name()))
		}
	}
	if err := unix.Rmdir(top); err != nil {
		tb.Errorf("remove cgroup %s: %v", top, err)
	}
}

// spawn starts a program in a new cgroup; it is killed at the test's end.
func spawn(tb testing.TB, cgroup string, argv ...string) *exec.Cmd {
	tb.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	start(tb, cgroup, cmd)
	return cmd
}

// idle starts a program that waits, and returns when it does: it has its memory then, of which
// a program that has just been executed has none.
func idle(tb testing.TB, cgroup string) {
	tb.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	start(tb, cgroup, cmd)
	if _, err := in.Write([]byte{0}); err != nil {
		tb.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		tb.Fatal(err)
	}
}

func start(tb testing.TB, cgroup string, cmd *exec.Cmd) {
	tb.Helper()
	if err := os.MkdirAll(cgroup, 0o755); err != nil {
		tb.Fatal(err)
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		tb.Fatal(err)
	}
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

func TestRead(t *testing.T) {
	root, top := tree(t)
	started := time.Now().Add(-time.Hour)
	idle(t, filepath.Join(root, top, "www"))
	idle(t, filepath.Join(root, top, "www/system.slice/cron"))
	idle(t, filepath.Join(root, top, "db"))
	if err := os.Mkdir(filepath.Join(root, top, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	before, err := Read(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}

	rows, err := Read(t.Context(), root, []Guest{
		{XID: 120, Name: "www", Cgroup: top + "/www", Started: started},
		{XID: 110, Name: "db", Cgroup: top + "/db"},
		{XID: 130, Name: "empty", Cgroup: top + "/empty"},
		{XID: 140, Name: "gone", Cgroup: top + "/gone"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 {
		t.Fatalf("%d rows, want the host and two running guests: %+v", len(rows), rows)
	}
	host, db, www := rows[0], rows[1], rows[2]
	if host.Context != 0 || host.Name != "root server" || db.Name != "db" || www.Name != "www" {
		t.Errorf("rows are not by context: %+v", rows)
	}
	if www.Processes != 2 || db.Processes != 1 {
		t.Errorf("%d and %d processes, want 2 (one in a cgroup below) and 1", www.Processes, db.Processes)
	}
	if host.Processes < 1 || host.Processes > before[0].Processes {
		t.Errorf("the host has %d processes, had %d with the guests' three", host.Processes, before[0].Processes)
	}
	for _, r := range []api.StatRow{db, www} {
		if r.VSZ < 1<<20 || r.RSS < 1<<12 || r.RSS > r.VSZ {
			t.Errorf("%s: VSZ %d, RSS %d", r.Name, r.VSZ, r.RSS)
		}
	}
	if www.Uptime < time.Hour || www.Uptime > time.Hour+time.Minute {
		t.Errorf("uptime of www is %v, want an hour", www.Uptime)
	}
	if db.Uptime > time.Minute {
		t.Errorf("uptime of db is %v, want that of its oldest process", db.Uptime)
	}
	if host.Uptime < db.Uptime {
		t.Errorf("the host is up %v, its guest %v", host.Uptime, db.Uptime)
	}
}

// A guest's time is the cgroup's: it stays when the processes that used it end.
func TestReadCountsTimeOfEndedProcesses(t *testing.T) {
	root, top := tree(t)
	guest := Guest{XID: 2, Name: "busy", Cgroup: top + "/busy"}
	spawn(t, filepath.Join(root, guest.Cgroup), "sleep", "100")
	busy := spawn(t, filepath.Join(root, guest.Cgroup), "sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done")
	if err := busy.Wait(); err != nil {
		t.Fatal(err)
	}
	rows, err := Read(t.Context(), root, []Guest{guest})
	if err != nil {
		t.Fatal(err)
	}
	if r := rows[1]; r.Processes != 1 || r.User+r.Sys < 5*time.Millisecond {
		t.Errorf("got %+v, want one process and the time of the one that ended", r)
	}
}

func TestReadWhileProcessesComeAndGo(t *testing.T) {
	root, top := tree(t)
	guest := Guest{XID: 2, Name: "storm", Cgroup: top + "/storm"}
	spawn(t, filepath.Join(root, guest.Cgroup), "sh", "-c", "while :; do /bin/true; done")
	for range 50 {
		rows, err := Read(t.Context(), root, []Guest{guest})
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != 2 || rows[1].Processes < 1 {
			t.Fatalf("the guest was not seen running: %+v", rows)
		}
	}
}

func TestReadCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, cgroup2(t), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The target is 150 ms for 1,000 guests.
func BenchmarkRead(b *testing.B) {
	root, top := tree(b)
	var guests []Guest
	for i := range 1000 {
		g := Guest{XID: i + 2, Name: fmt.Sprintf("g%d", i), Cgroup: fmt.Sprintf("%s/g%d", top, i)}
		spawn(b, filepath.Join(root, g.Cgroup), "sleep", "1000")
		guests = append(guests, g)
	}
	for b.Loop() {
		rows, err := Read(b.Context(), root, guests)
		if err != nil {
			b.Fatal(err)
		}
		if len(rows) != len(guests)+1 {
			b.Fatalf("%d rows", len(rows))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/1000guests")
}
