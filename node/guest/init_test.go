package guest

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/node/api"
)

// configured is a guest with files of its configuration besides.
func configured(t *testing.T, h *Host, g api.Guest, files map[string]string) {
	t.Helper()
	must(t, h.Create(t.Context(), g))
	t.Cleanup(func() { must(t, h.Delete(context.Background(), g.Name)) })
	writeFiles(t, h, g.Name, files)
}

// writeFiles writes files of a guest's configuration.
func writeFiles(t *testing.T, h *Host, guest string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(h.config(guest), name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// rc stands for sysvinit's /etc/init.d/rc: it starts a daemon that outlives it, and ends
// it at a stop.
const rc = `#!/bin/sh
echo "rc $1 of $RUNLEVEL, was $PREVLEVEL"
case $1 in
6) echo stopped >>/etc/log; exec kill $(cat /run/daemon) ;;
esac
sleep 1000 &
echo $! >/run/daemon
sleep 0.2
echo started >>/etc/log
`

func TestSysvStyle(t *testing.T) {
	h := host(t)
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	must(t, os.MkdirAll(tree+"/etc/init.d", 0o755))
	must(t, os.WriteFile(tree+"/etc/init.d/rc", []byte(rc), 0o755))
	g := inMode(api.ModeShared, "sysv", 180)
	g.Init = api.Init{Style: "sysv"}
	configured(t, h, g, nil)
	log := func() string {
		b, err := os.ReadFile(h.rootDir(g.Name) + "/etc/log")
		must(t, err)
		return string(b)
	}

	must(t, h.Start(t.Context(), g.Name, Options{Sync: true}))
	if got := log(); got != "started\n" {
		t.Errorf("the scripts had not ended: %q", got)
	}
	out, _ := run(t, h, g.Name, "sh", "-c", "cat /proc/1/comm; busybox od -A n -t x1 -N 8 /run/utmp; cat /run/host/container-manager")
	if out != "init\n 01 00 00 00 33 4e 00 00\nvserver" {
		t.Errorf("in the guest: %q", out)
	}
	_, err = h.Stop(t.Context(), g.Name)
	must(t, err)
	if got := log(); got != "started\nstopped\n" {
		t.Errorf("its scripts: %q", got)
	}
	if got := logOf(t, h, g.Name, 10); got != "rc 3 of 3, was N\nrc 6 of 6, was 3\n" {
		t.Errorf("its console: %q", got)
	}

	// It ends when nothing is left, and is cleaned up after.
	must(t, h.Start(t.Context(), g.Name, Options{Sync: true}))
	if out, code := run(t, h, g.Name, "sh", "-c", "kill $(cat /run/daemon)"); code != 0 {
		t.Fatal(out)
	}
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, cg.WaitEmpty(t.Context()))
	must(t, h.Clean(t.Context()))

	// Without such scripts it does not start, and says so.
	must(t, os.Remove(tree+"/etc/init.d/rc"))
	err = h.Start(t.Context(), g.Name, Options{Sync: true})
	if err == nil || !strings.Contains(err.Error(), "exit status 127") || !strings.Contains(err.Error(), "install sysv-rc") {
		t.Errorf("without rc: %v", err)
	}
}

func TestRescue(t *testing.T) {
	h := host(t)
	for i, row := range []struct {
		name   string
		rescue Rescue
		comm   string // of process 1
		argv   string // of the command
	}{
		{"the default", Rescue{}, "init", "/bin/sleep 900 "},
		{"a command", Rescue{Command: []string{"sleep", "77"}}, "init", "sleep 77 "},
		{"a command as process 1", Rescue{Command: []string{"sleep", "78"}, Init: true}, "sleep", "sleep 78 "},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := inMode(api.ModeShared, "rescued", 185+i)
			g.Init = api.Init{Style: "plain"} // it has no /sbin/init
			configured(t, h, g, map[string]string{"apps/init/cmd.stop": "/bin/nothing\n"})
			must(t, h.Start(t.Context(), g.Name, Options{Rescue: &row.rescue}))
			// The init takes its name, and starts the command, after the start.
			var out string
			eventually(t, func() string { return out }, func() bool {
				out, _ = run(t, h, g.Name, "sh", "-c", `cat /proc/1/comm; for p in /proc/[0-9]*; do busybox tr '\0' ' ' <$p/cmdline; echo; done`)
				return strings.HasPrefix(out, row.comm+"\n") && strings.Contains(out, "\n"+row.argv+"\n")
			})
			st, err := h.State(g.Name)
			must(t, err)
			if st.Runs == nil || st.Runs.Init.Style != "rescue" {
				t.Errorf("it is not seen that it runs without its init: %+v", st.Runs)
			}
			begun := time.Now()
			_, err = h.Stop(t.Context(), g.Name)
			must(t, err)
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("its stop takes %v", took)
			}
			if err := h.Start(t.Context(), g.Name, Options{}); err == nil || !strings.Contains(err.Error(), "/sbin/init") {
				t.Errorf("the next start is not of its own init: %v", err)
			}
		})
	}
}

// What a stop does is what the guest was started with.
func TestHowAGuestIsStopped(t *testing.T) {
	h := host(t)
	deaf := []string{"sh", "-c", `(trap 'echo child usr1; exit' USR1; while :; do sleep 0.05; done) & trap 'echo term' TERM; trap 'echo usr1' USR1; >/run/ready; while :; do sleep 0.05; done`}
	for i, row := range []struct {
		name  string
		files map[string]string
		says  string
		most  time.Duration
		warns string
	}{
		{"cmd.stop", map[string]string{"apps/init/cmd.stop": "/bin/sh\n-c\nkill -USR1 1; sleep 1\n", "apps/init/killseq": "9\n"}, "usr1\n", 10 * time.Second, ""},
		{"cmd.stop that is not there", map[string]string{"apps/init/cmd.stop": "/bin/nothing\n", "apps/vshelper/sync-timeout": "3\n", "apps/init/killseq": "9\n"}, "term\n", 20 * time.Second, "/bin/nothing: no such file"},
		{"cmd.stop that fails", map[string]string{"apps/init/cmd.stop": "/bin/sh\n-c\nexit 4\n", "apps/vshelper/sync-timeout": "3\n", "apps/init/killseq": "9\n"}, "term\n", 20 * time.Second, "/bin/sh: exit status 4"},
		{"killseq", map[string]string{"apps/vshelper/sync-timeout": "3\n", "apps/init/killseq": "USR1 3 KILL\n"}, "term\nchild usr1\n", 20 * time.Second, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := inMode(api.ModeShared, "stopped", 190+i, deaf...)
			configured(t, h, g, row.files)
			must(t, h.Start(t.Context(), g.Name, Options{}))
			if out, code := run(t, h, g.Name, "sh", "-c", "until ls /run/ready; do sleep 0.01; done 2>/run/none"); code != 0 {
				t.Fatal(out)
			}
			must(t, os.RemoveAll(filepath.Join(h.config(g.Name), "apps/init/killseq"))) // edited since
			begun := time.Now()
			ctx, said := warned()
			_, err := h.Stop(ctx, g.Name)
			must(t, err)
			if row.warns == "" && said.Len() > 0 || !strings.Contains(said.String(), row.warns) {
				t.Errorf("it warned %q, want %q", said, row.warns)
			}
			if took := time.Since(begun); took > row.most {
				t.Errorf("it takes %v", took)
			}
			// The shell also names the signal that ended a child: each sleep that it starts
			// while what is left is asked.
			if got := strings.ReplaceAll(logOf(t, h, g.Name, 1000), "User defined signal 1\n", ""); got != row.says {
				t.Errorf("it said %q, want %q", got, row.says)
			}
		})
	}
}

// busybox's init catches nothing and waits in sigwaitinfo(2): a stop asks it too.
func TestBusyboxInitIsAskedToStop(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeShared, "busyboxinit", 193, "sh", "-c", `printf '::sysinit:/bin/busybox touch /run/up\n::shutdown:/bin/busybox echo in order\n' >/etc/inittab; exec busybox init`)
	configured(t, h, g, nil)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if out, code := run(t, h, g.Name, "sh", "-c", "until ls /run/up; do sleep 0.01; done 2>/run/none"); code != 0 {
		t.Fatal(out)
	}
	_, err := h.Stop(t.Context(), g.Name)
	must(t, err)
	if got := logOf(t, h, g.Name, 10); !strings.Contains(got, "in order") {
		t.Errorf("what it does at a shutdown is left out: %q", got)
	}
}

// A start that is to wait, and cannot, says why at once.
func TestStartSyncThatFails(t *testing.T) {
	h := host(t)
	for i, row := range []struct{ name, command, warns string }{
		{"a command that is not there", "/bin/nothing\n", "cmd.start-sync: "},
		{"one that fails", "/bin/sh\n-c\nexit 4\n", "cmd.start-sync: exit status 4"},
		{"one that ends well", "/bin/sh\n-c\ntrue\n", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := inMode(api.ModeShared, "synced", 200+i, "sleep", "1000")
			configured(t, h, g, map[string]string{"apps/init/cmd.start-sync": row.command})
			var said string
			begun := time.Now()
			must(t, h.Start(t.Context(), g.Name, Options{Sync: true, Warn: func(text string) { said += text }}))
			if row.warns == "" == strings.Contains(said, "cmd.start-sync") || !strings.Contains(said, row.warns) {
				t.Errorf("it warned %q, want %q", said, row.warns)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("it takes %v", took)
			}
		})
	}
}

// Without the program of a rescue, or of a style, a start says what is missing.
func TestStartsWithoutTheirProgram(t *testing.T) {
	h := host(t)
	h.WatchStarts = true
	g := inMode(api.ModeShared, "lacking", 205)
	g.Init = api.Init{Style: "openrc"}
	configured(t, h, g, nil)
	for _, row := range []struct {
		name string
		opt  Options
		says string
	}{
		{"a rescue", Options{Rescue: &Rescue{Command: []string{"nosuch"}}}, "the guest has no such program"},
		{"a style", Options{Sync: true}, "install openrc in the guest"},
	} {
		if err := h.Start(t.Context(), g.Name, row.opt); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want %q", row.name, err, row.says)
		}
	}
}

func TestKillSequences(t *testing.T) {
	for _, row := range []struct {
		text string
		want []killStep // nil: an error
	}{
		{"15 5 9", []killStep{{15, 5 * time.Second}, {9, 0}}},
		{"9", []killStep{{9, 0}}},
		{"TERM 1 sigint 2 -9", []killStep{{15, time.Second}, {2, 2 * time.Second}, {9, 0}}},
		{"15 0 1", []killStep{{15, 0}, {1, 0}}},
		{"", nil}, {"15 5", nil}, {"0", nil}, {"65", nil}, {"NOTHING", nil}, {"15 5000 9", nil}, {strings.Repeat("15 0 ", 30) + "9", nil},
	} {
		got, err := parseKillSequence(row.text)
		if (err == nil) != (row.want != nil) || err == nil && !reflect.DeepEqual(got, row.want) {
			t.Errorf("%q: %v, %v", row.text, got, err)
		}
	}
}

func FuzzKillSequence(f *testing.F) {
	f.Add("15 5 9")
	f.Add("TERM 0 KILL")
	f.Fuzz(func(t *testing.T, text string) {
		steps, err := parseKillSequence(text)
		if err == nil && (len(steps) == 0 || len(steps) > maxKillSteps) {
			t.Errorf("%q: %v", text, steps)
		}
		for _, s := range steps {
			if s.Signal < 1 || s.Signal > 64 || s.Wait < 0 || s.Wait > maxPatience*time.Second {
				t.Errorf("%q: %v", text, s)
			}
		}
	})
}

// A guest's machine id is the same at each start, and nobody else's.
func TestMachineID(t *testing.T) {
	h := host(t)
	file := t.TempDir() + "/machine-id"
	must(t, os.WriteFile(file, []byte("0123456789abcdef0123456789abcdef\n"), 0o444))
	defer func(was string) { hostMachineID = was }(hostMachineID)
	hostMachineID = file
	g := inMode(api.ModeShared, "machine", 195, "sh", "-c", "echo $container_uuid; exec sleep 1000")
	configured(t, h, g, nil)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	out, _ := run(t, h, g.Name, "sh", "-c", "cat /run/host/container-uuid; hostname")
	want := machineID(g.Name) + "machine"
	if out != want || len(machineID(g.Name)) != 36 || machineID("other") == machineID(g.Name) || strings.Contains(out, "01234567-89ab") {
		t.Errorf("%q, want %q", out, want)
	}
	eventually(t, func() string { return "its init has " + logOf(t, h, g.Name, 1) }, func() bool { return logOf(t, h, g.Name, 1) == machineID(g.Name)+"\n" })
	must(t, os.WriteFile(file, []byte("uninitialized\n"), 0o444))
	if got := machineID(g.Name); got != "" {
		t.Errorf("of a host without an id: %q", got)
	}
}
