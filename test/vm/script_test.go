package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vsfleet/vsfleet/test/script"
)

// untilTimeout bounds what a script waits for.
const untilTimeout = 5 * time.Minute

// host is the machine of all scripts.
var host *machine

// TestScripts runs the quick selection.
func TestScripts(t *testing.T) { runScripts(t, "testdata") }

// TestNightly runs the rest.
func TestNightly(t *testing.T) { runScripts(t, "testdata/nightly") }

func runScripts(t *testing.T, dir string) {
	if host == nil {
		var err error
		if host, err = newMachine(suite(), runDir); err != nil {
			t.Fatal(err)
		}
	}
	// Before go test ends everything: the scripts that hang are named.
	deadline, limited := t.Deadline()
	if limited {
		deadline = deadline.Add(-time.Minute)
		host.deadline = deadline
	}
	testscript.RunT(oneByOne{t}, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Deadline:            deadline,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"on": on, "until": until, "put": put, "reboot": reboot, "crash": crash, "poweroff": poweroff, "boot": boot, "monitor": ask,
			"exits": script.Exits, "fill": script.Fill, "fetch": script.Fetch,
		},
		Condition: func(condition string) (bool, error) {
			if condition == "bookworm" || condition == "trixie" {
				return condition == suite(), nil
			}
			return false, fmt.Errorf("unknown condition %s", condition)
		},
	})
}

// oneByOne runs scripts one after the other, as they share a machine, and puts the
// machine back before each.
type oneByOne struct{ *testing.T }

func (oneByOne) Parallel() {}

func (oneByOne) Verbose() bool { return testing.Verbose() }

func (o oneByOne) Run(name string, f func(testscript.T)) {
	o.T.Run(name, func(t *testing.T) {
		if err := host.Reset(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if t.Failed() && host.Running() {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				last := host.command(ctx, "journalctl -b -n 300 --no-pager | grep -vE ' (sshd|systemd-logind)\\[|[Ss]ession ' | tail -n 60")
				last.WaitDelay = time.Second // as in run
				journal, err := last.CombinedOutput()
				t.Logf("the machine's console:\n%s\nits journal (%v):\n%s", host.Console(8000), err, journal)
			}
		}()
		f(oneByOne{t})
	})
}

// setup gives a script its inventory and environment.
func setup(env *testscript.Env) error {
	key, err := os.ReadFile(filepath.Join(host.base, "id"))
	if err != nil {
		return err
	}
	known, err := os.ReadFile(filepath.Join(host.base, "known_hosts"))
	if err != nil {
		return err
	}
	inventory := "ssh: {user: root, identity: id, known_hosts: known_hosts}\nhosts:\n  host: {address: " + address + "}\n"
	for name, content := range map[string][]byte{"id": key, "known_hosts": known, "host.yml": []byte(inventory)} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), content, 0o600); err != nil {
			return err
		}
	}
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	fleet := filepath.Join(env.WorkDir, "fleet.yml")
	inventories := filepath.Join(env.WorkDir, "host.yml")
	if _, err := os.Stat(fleet); err == nil {
		inventories += ":" + fleet
	}
	env.Vars = append(env.Vars, "PATH="+filepath.Join(runDir, "bin")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME="+home, "SSH_AUTH_SOCK=", "VSFLEET_INVENTORY="+inventories,
		"VSFLEET_CONNECT_TIMEOUT=60s", "HOST="+address) // a login takes seconds, and more while the machine swaps
	return nil
}

// run runs a command line on the machine, and returns its exit status.
func run(ts *testscript.TestScript, line string) int {
	ctx, cancel := host.within(untilTimeout)
	defer cancel()
	cmd := host.command(ctx, line)
	cmd.WaitDelay = 10 * time.Second // the shared connection holds its output, too
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	_, werr := io.WriteString(ts.Stdout(), stdout.String())
	ts.Check(werr)
	_, werr = io.WriteString(ts.Stderr(), stderr.String())
	ts.Check(werr)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

func on(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: on COMMAND…")
	}
	if exit := run(ts, strings.Join(args, " ")); (exit != 0) != neg {
		ts.Fatalf("exit status %d", exit)
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: until COMMAND…")
	}
	// Asked on the machine: one connection.
	not := ""
	if neg {
		not = "!"
	}
	line := fmt.Sprintf("n=0; until %s { %s\n}; do n=$((n + 1)); [ $n -lt %d ] || exit 1; sleep 0.5; done",
		not, strings.Join(args, " "), 2*int(untilTimeout.Seconds())-60)
	if exit := run(ts, line); exit != 0 {
		ts.Fatalf("not within %v", untilTimeout)
	}
}

func put(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: put FILE PATH")
	}
	ts.Check(host.Put(strings.NewReader(ts.ReadFile(args[0])), args[1]))
}

func reboot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: reboot")
	}
	before := host.bootID(context.Background())
	run(ts, "if [ -d /run/systemd/system ]; then systemctl reboot --no-block; else reboot; fi")
	ts.Check(host.waitUp(before))
}

func crash(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: crash")
	}
	before := host.bootID(context.Background())
	ts.Check(host.monitor.Run("system_reset"))
	ts.Check(host.waitUp(before))
}

func poweroff(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: poweroff")
	}
	run(ts, "systemctl poweroff --no-block")
	ts.Check(host.waitOff())
}

func boot(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: boot [WORD…]")
	}
	ts.Check(host.Boot(args...))
}

func ask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: monitor COMMAND…")
	}
	said, err := host.monitor.Ask(strings.Join(args, " "))
	ts.Check(err)
	_, err = fmt.Fprintln(ts.Stdout(), said)
	ts.Check(err)
}
