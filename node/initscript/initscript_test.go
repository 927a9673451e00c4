package initscript

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func root(t *testing.T, files ...string) string {
	dir := t.TempDir()
	for _, file := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheScriptIsThatOfTheHostsInit(t *testing.T) {
	// Programs that say how they were called.
	bin := t.TempDir()
	said := filepath.Join(bin, "said")
	for _, program := range []string{"update-rc.d", "rc-update"} {
		if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\necho ${0##*/} $* >>"+said+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	for _, row := range []struct {
		what, root, first, calls string
	}{
		{"sysvinit", root(t, "etc/init.d/cron"), "#!/bin/sh", "update-rc.d vservers defaults\nupdate-rc.d -f vservers remove\n"},
		{"OpenRC", root(t, "etc/init.d/cron", "sbin/openrc-run"), "#!/sbin/openrc-run", "rc-update add vservers default\nrc-update delete vservers default\n"},
		{"neither", root(t), "", ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			os.Remove(said)
			for range 2 {
				known, err := Install(t.Context(), row.root)
				if err != nil || known != (row.first != "") {
					t.Fatalf("known %v, %v", known, err)
				}
				if text, _ := os.ReadFile(script(row.root)); !strings.HasPrefix(string(text), row.first) {
					t.Errorf("it begins with %.20q", text)
				}
				if row.calls != "" {
					if _, err := os.Stat(said); err != nil {
						t.Error("nothing was enabled")
					}
				}
			}
			os.Remove(said)
			if _, err := Install(t.Context(), row.root); err != nil {
				t.Fatal(err)
			}
			if err := Remove(t.Context(), row.root); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(said); string(got) != row.calls {
				t.Errorf("called %q, want %q", got, row.calls)
			}
			if _, err := os.Stat(script(row.root)); err == nil {
				t.Error("the script is left")
			}
		})
	}
}

// What is not disabled is not removed: the same call again would not find it.
func TestTheScriptStaysUntilItIsDisabled(t *testing.T) {
	bin := t.TempDir()
	fails := filepath.Join(bin, "fails")
	if err := os.WriteFile(filepath.Join(bin, "update-rc.d"), []byte("#!/bin/sh\ntest ! -e "+fails+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	dir := root(t, "etc/init.d/cron")
	if _, err := Install(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fails, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), dir); err == nil {
		t.Error("it is said to be disabled")
	}
	if _, err := os.Stat(script(dir)); err != nil {
		t.Error(err)
	}
	if err := os.Remove(fails); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(script(dir)); err == nil {
		t.Error("the script is left")
	}
}

func TestAnAdministratorsScriptIsLeftAlone(t *testing.T) {
	dir := root(t, "etc/init.d/vservers")
	if _, err := Install(t.Context(), dir); err == nil {
		t.Error("it was replaced")
	}
	if err := Remove(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(script(dir)); err != nil {
		t.Error("it was removed")
	}
}

// The sysv script, run: what it asks for, and which status it has.
func TestTheScriptStartsAndStops(t *testing.T) {
	bin := t.TempDir()
	said := filepath.Join(bin, "said")
	if err := os.WriteFile(filepath.Join(bin, "start-vservers"), []byte("#!/bin/sh\necho $* >>"+said+"\nexit 2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Of a host that has no cgroups mounted.
	for name, text := range map[string]string{"mountpoint": "exit 32\n", "mount": "echo mount $5 $6 >>" + said + "\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(bin, "vservers")
	text := strings.ReplaceAll(sysv, "PATH=/usr/local/sbin", "PATH="+bin)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		arg, says string
		status    int
	}{
		{"start", "mount cgroup2 /sys/fs/cgroup\n--start -j 6 --marked\n", 2},
		{"stop", "--stop --running -j 6\n", 2},
		{"restart", "--stop --running -j 6\nmount cgroup2 /sys/fs/cgroup\n--start -j 6 --marked\n", 2},
		{"go", "", 2},
	} {
		os.Remove(said)
		cmd := exec.Command(path, row.arg)
		_ = cmd.Run()
		if got, _ := os.ReadFile(said); string(got) != row.says || cmd.ProcessState.ExitCode() != row.status {
			t.Errorf("%s: %q, status %d; want %q, %d", row.arg, got, cmd.ProcessState.ExitCode(), row.says, row.status)
		}
	}
}

// The script of OpenRC, run as OpenRC runs it: sourced, with programs of its own in PATH.
func TestTheOpenRCScriptStartsAndStops(t *testing.T) {
	bin := t.TempDir()
	for name, text := range map[string]string{
		"start-vservers": "echo $*; exit 2", "ebegin": "", "eend": "echo status $1",
		"use": "", "after": "", "need": "echo Debian has no service $*",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct{ call, says string }{
		{"depend", ""},
		{"start", "--start -j 6 --marked\nstatus 2\n"},
		{"MARK=default,night; start", "--start -j 6 -m default,night\nstatus 2\n"},
		{"stop", "--stop --running -j 6\nstatus 2\n"},
	} {
		cmd := exec.Command("sh", "-c", openrc+row.call)
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
		if got, err := cmd.CombinedOutput(); err != nil || string(got) != row.says {
			t.Errorf("%s: %v: %q, want %q", row.call, err, got, row.says)
		}
	}
}
