package timer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// On a systemd host the timer is systemd's; where that does not take it, and elsewhere,
// the program is begun at once, in a session of its own.
func TestTimer(t *testing.T) {
	for _, row := range []struct {
		name     string
		systemd  string // "": it does not run the host; else what systemd-run does
		want     string // of systemd-run's arguments
		detached bool
	}{
		{"with systemd", "exit 0", "--quiet --collect --unit=vsnode-guard-RUN --on-active=60 --timer-property=AccuracySec=1s --description=vsnode puts guests back unless its controller comes back -- PROGRAM guard", false},
		{"systemd does not take it", "exit 1", "--quiet --collect --unit=vsnode-guard-RUN --on-active=60 --timer-property=AccuracySec=1s --description=vsnode puts guests back unless its controller comes back -- PROGRAM guard", true},
		{"without systemd", "", "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			script := func(name, line string) string {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, []byte("#!/bin/sh\n"+line+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
				return path
			}
			old := []string{booted, systemdRun, systemctl}
			t.Cleanup(func() { booted, systemdRun, systemctl = old[0], old[1], old[2] })
			booted = filepath.Join(dir, "none")
			if row.systemd != "" {
				booted = dir
			}
			systemdRun = script("systemd-run", `echo "$*" > `+dir+"/args\n"+row.systemd)
			systemctl = script("systemctl", `echo "$*" > `+dir+"/stopped")
			// A session's leader has its own id: sid is the sixth field of its stat.
			program := script("program", `read -r _ _ _ _ _ sid _ < /proc/$$/stat; echo "$1 $(pwd) $$ $sid" > `+dir+"/ran.new; mv "+dir+"/ran.new "+dir+"/ran")
			timer := Timer{Unit: "vsnode-guard-RUN", After: 59*time.Second + 1, Argv: []string{program, "guard"}}
			if err := timer.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			args, _ := os.ReadFile(dir + "/args")
			if got := strings.TrimSpace(strings.ReplaceAll(string(args), program, "PROGRAM")); got != row.want {
				t.Errorf("systemd-run %s", got)
			}
			var ran []string
			for deadline := time.Now().Add(10 * time.Second); row.detached && len(ran) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				b, _ := os.ReadFile(dir + "/ran")
				ran = strings.Fields(string(b))
			}
			if row.detached && (len(ran) != 4 || ran[0] != "guard" || ran[1] != "/" || ran[2] != ran[3]) {
				t.Errorf("detached: %q", ran)
			}
			if err := timer.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			stopped, _ := os.ReadFile(dir + "/stopped")
			if got := string(stopped); (got == "--quiet --no-ask-password stop vsnode-guard-RUN.timer\n") != (row.systemd != "") {
				t.Errorf("systemctl %q", got)
			}
		})
	}
}
