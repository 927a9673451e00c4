package procctx

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	insides["nothing"] = func() { fmt.Println("the host's program ran") }
}

// TestNoGuestRunsTheHostsProgram: a script names its interpreter, which the
// kernel opens while the process still is ours. The control has the program
// open to all, as an installed vsnode was.
func TestNoGuestRunsTheHostsProgram(t *testing.T) {
	for _, open := range []bool{false, true} {
		mode := os.FileMode(0o700)
		if open {
			mode = 0o755
		}
		if err := os.Chmod("/proc/self/exe", mode); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod("/proc/self/exe", 0o700)
		sp, _ := guest(t, 680, "/bin/evil")
		sp.Env = append(sp.Env, inside+"=nothing")
		if err := os.WriteFile(sp.Root.Image+"/bin/evil", []byte("#!/proc/self/exe\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := start(context.Background(), sp)
		if refused := err != nil && strings.Contains(err.Error(), "run /bin/evil: permission denied"); refused == open {
			t.Errorf("as init, open %v: %v", open, err)
		}
		if _, err := Start(context.Background(), sp); open != (err != nil && strings.Contains(err.Error(), "is not root's alone (mode 0755)")) {
			t.Errorf("open %v: start: %v", open, err)
		}

		good, cg := guest(t, 681, "sleep", "1000")
		if err := os.WriteFile(good.Root.Image+"/bin/evil", []byte("#!/proc/self/exe\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		p, err := start(context.Background(), good)
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range []User{{}, {UID: 33, GID: 33}} {
			cmd := Command{InitPID: p.PID, Cgroup: cg, Scope: good.Scope, Caps: good.Caps, User: user,
				Argv: []string{"/bin/evil"}, Env: sp.Env, Stdin: os.Stdin, Stdout: good.Console, Stderr: good.Console}
			run, err := enter(context.Background(), cmd)
			if (err == nil) != open {
				t.Errorf("as user %d, open %v: %v", user.UID, open, err)
			}
			if err == nil {
				if _, err := run.Wait(); err != nil {
					t.Error(err)
				}
			}
			if run, err := Exec(context.Background(), cmd); err == nil {
				run.Wait()
				t.Errorf("as user %d, open %v: it was run", user.UID, open)
			}
		}
		if open {
			console(t, good, "the host's program ran")
		}
		unix.Kill(p.PID, unix.SIGKILL)
		if _, err := wait(p.PID); err != nil {
			t.Error(err)
		}
	}
}
