package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/cgroup"
)

const asNode = "VSFLEET_TEST_HOOK_NODE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asNode); dir != "" {
		set, err := Find(dir+"/scripts", dir+"/defaults", noSkip)
		if err == nil {
			err = set.Run(context.Background(), Call{Phase: PreStart, Name: "www", Dir: dir, Cgroup: cgroup.Dir(os.Args[1]), Refuse: anything})
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func noSkip(string) bool    { return false }
func anything(string) error { return nil }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree makes hooks; names that begin with "+" become executable.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-hook-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	for name, content := range files {
		name, executable := strings.CutPrefix(name, "+")
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if to, link := strings.CutPrefix(content, "->"); link {
			must(t, os.Symlink(strings.ReplaceAll(to, "DIR", dir), path))
			continue
		}
		mode := os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		must(t, os.WriteFile(path, []byte(content), mode))
	}
	return dir
}

func ownCgroup(t *testing.T) cgroup.Dir {
	t.Helper()
	mount, err := cgroup.Mount()
	must(t, err)
	dir := cgroup.Dir(fmt.Sprintf("%s/vsfleet-test-hook-%d/.hook", mount, os.Getpid()))
	t.Cleanup(func() { must(t, cgroup.Dir(filepath.Dir(string(dir))).Remove()) })
	return dir
}

// runIn runs the hooks of pre-start and returns what they said.
func runIn(t *testing.T, ctx context.Context, dir string, change func(*Call, *Set)) (string, error) {
	t.Helper()
	set, err := Find(dir+"/scripts", dir+"/defaults", func(name string) bool { return strings.HasSuffix(name, "~") })
	if err != nil {
		return "", err
	}
	var lines []string
	c := Call{
		Phase: PreStart, Name: "www", Dir: dir, Held: []string{"other", "www"}, Cgroup: ownCgroup(t), Refuse: anything,
		Info: map[string]any{"name": "www"}, Say: func(s string) { lines = append(lines, s) },
	}
	if change != nil {
		change(&c, &set)
	}
	err = set.Run(ctx, c)
	if _, serr := os.Stat(string(c.Cgroup)); !errors.Is(serr, os.ErrNotExist) {
		t.Errorf("%s is left: %v", c.Cgroup, serr)
	}
	return strings.Join(lines, "\n"), err
}

const says = "#!/bin/sh\necho "

func TestHooksRunAsInLinuxVServer(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, row := range []struct {
		what  string
		files map[string]string
		all   bool
		want  string // lines without "pre-start: "
		err   string
	}{
		{"none", nil, false, "", ""},
		{"another phase's", map[string]string{"+scripts/post-start": says + "no"}, false, "", ""},
		{"with action and name", map[string]string{"+scripts/pre-start": says + `"$#" "$@"`}, false, "2 pre-start www", ""},
		{"one without #!", map[string]string{"+scripts/pre-start": `echo "$#" "$@"`}, false, "2 pre-start www", ""},
		{"one that is not executable, as a part of a shell", map[string]string{"scripts/pre-start": `echo "$#" "$@"; exit 0`}, false, "2 pre-start www", ""},
		{"the file, then the directory in order", map[string]string{
			"+scripts/pre-start.d/20": says + "20", "+scripts/pre-start.d/10": says + "10", "+scripts/pre-start.d/100": says + "100", "+scripts/pre-start": says + "first",
		}, false, "first\n10\n100\n20", ""},
		{"no copies, hidden files and directories", map[string]string{
			"+scripts/pre-start.d/a~": says + "a", "+scripts/pre-start.d/.b": says + "b", "+scripts/pre-start.d/c/d": says + "d", "+scripts/pre-start.d/e": says + "e",
		}, false, "e", ""},
		{"the defaults where the guest has none", map[string]string{"+defaults/pre-start": says + "default", "+scripts/post-stop": says + "no"}, false, "default", ""},
		{"the guest's own instead of the defaults", map[string]string{"+defaults/pre-start": says + "default", "+scripts/pre-start": says + "own"}, false, "own", ""},
		{"one of the directory instead of the defaults", map[string]string{"+defaults/pre-start": says + "default", "+scripts/pre-start.d/1": says + "own"}, false, "own", ""},
		{"both where a part of the shell asks for it", map[string]string{
			"+defaults/pre-start": says + "default", "+defaults/pre-start.d/1": says + "another", "+scripts/pre-start": says + "own", "scripts/pre-start.d/1": "DONT_SKIP_DEFAULTS=1; exit 0",
		}, false, "own\ndefault\nanother", ""},
		{"a link to a file of root's", map[string]string{"scripts/pre-start": "->DIR/lib/hook", "+lib/hook": says + "linked"}, false, "linked", ""},
		{"the guest on standard input", map[string]string{"+scripts/pre-start": "#!/bin/sh\ncat"}, false, `{"name":"www"}`, ""},
		{"the configuration is the working directory", map[string]string{"+scripts/pre-start": says + `$PWD $VSERVER_DIR | sed "s,$VSERVER_DIR,DIR,g"`}, false, "DIR DIR", ""},
		{"an environment of its own", map[string]string{"+scripts/pre-start": "#!/bin/sh\nenv | grep -v -e PWD= -e SHLVL= -e _= -e DIR= | sort"}, false,
			"HOME=/root\nLANG=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nVSERVER_HELD=other www\nVSERVER_HOOK=pre-start\nVSERVER_NAME=www", ""},
		{"no terminal", map[string]string{"+scripts/pre-start": "#!/bin/sh\n(: </dev/tty) 2>/dev/null || echo none"}, false, "none", ""},
		{"long output is cut", map[string]string{"+scripts/pre-start": "#!/bin/sh\nseq 1000\necho " + long}, false,
			"1001 lines, the last of which are:\n982\n983\n984\n985\n986\n987\n988\n989\n990\n991\n992\n993\n994\n995\n996\n997\n998\n999\n1000\n" + long[:maxLine], ""},

		{"a failure ends it, with the last output", map[string]string{"+scripts/pre-start": says + "bad news >&2; exit 7", "+scripts/pre-start.d/1": says + "no"},
			false, "", `/scripts/pre-start: exit status 7; its last output: "bad news"`},
		{"a failure, with the output before the last", map[string]string{"+scripts/pre-start": says + "one; echo two; exit 7"},
			false, "one", `exit status 7; its last output: "two"`},
		{"a failure after the start does not end the others", map[string]string{"+scripts/pre-start": "#!/bin/sh\nexit 7", "+scripts/pre-start.d/1": says + "yes"},
			true, "yes", `/scripts/pre-start: exit status 7`},
		{"a part of the shell that fails", map[string]string{"scripts/pre-start": "false"}, false, "", "exit status 1"},
		{"an interpreter that is not there", map[string]string{"+scripts/pre-start": "#!/bin/nowhere\n"}, false, "", "/scripts/pre-start: its interpreter /bin/nowhere is not there"},
		{"a link that leads nowhere", map[string]string{"scripts/pre-start": "->nowhere"}, false, "", "scripts/pre-start: it is not run: find "},
		{"a circle of links", map[string]string{"scripts/pre-start.d/1": "->2", "scripts/pre-start.d/2": "->1"}, false, "", "too many levels of symbolic links"},
		{"too long a time", map[string]string{"scripts/timeout": "2h\n"}, false, "", `/scripts/timeout: want a number of seconds, or a time as 2m, from 1s to 1h, not "2h"`},
	} {
		t.Run(row.what, func(t *testing.T) {
			got, err := runIn(t, t.Context(), tree(t, row.files), func(c *Call, _ *Set) { c.All = row.all })
			if got = strings.TrimSpace(strings.ReplaceAll(got, "pre-start: ", "")); got != row.want {
				t.Errorf("said\n%s\nwant\n%s", got, row.want)
			}
			if (err != nil) != (row.err != "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("error %v, want %q", err, row.err)
			}
		})
	}
}

// Root runs what root alone can change.
func TestHooksOfOthersAreRefused(t *testing.T) {
	for _, row := range []struct {
		what   string
		change func(dir string) error
		want   string
	}{
		{"a file of a user's", func(dir string) error { return os.Chown(dir+"/scripts/pre-start", 1000, 0) }, "/scripts/pre-start belongs to user 1000"},
		{"a file that a group can write", func(dir string) error { return os.Chmod(dir+"/scripts/pre-start", 0o775) }, "/scripts/pre-start can be written by others than root"},
		{"a directory of a user's", func(dir string) error { return os.Chown(dir+"/scripts", 1000, 0) }, "/scripts belongs to user 1000"},
		{"a directory that all can write", func(dir string) error { return os.Chmod(dir+"/scripts", 0o777) }, "/scripts can be written by others than root"},
		{"a directory above", func(dir string) error { return os.Chown(dir, 1000, 0) }, "belongs to user 1000"},
		{"a file that a link leads to", func(dir string) error {
			return errors.Join(os.Rename(dir+"/scripts/pre-start", dir+"/real"), os.Symlink("../real", dir+"/scripts/pre-start"), os.Chown(dir+"/real", 1000, 0))
		}, "/real belongs to user 1000"},
		{"a user's link", func(dir string) error {
			return errors.Join(os.Rename(dir+"/scripts/pre-start", dir+"/real"), os.Symlink("../real", dir+"/scripts/pre-start"), os.Lchown(dir+"/scripts/pre-start", 1000, 0))
		}, "/scripts/pre-start belongs to user 1000"},
		{"a file that a guest can write", func(string) error { return nil }, "guests"},
	} {
		t.Run(row.what, func(t *testing.T) {
			dir := tree(t, map[string]string{"+scripts/pre-start": says + "ran >ran"})
			must(t, row.change(dir))
			_, err := runIn(t, t.Context(), dir, func(c *Call, _ *Set) {
				if row.want == "guests" {
					c.Refuse = func(path string) error { return fmt.Errorf("%s is the guests'", path) }
				}
			})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
			if _, err := os.Stat(dir + "/ran"); err == nil {
				t.Error("it ran")
			}
		})
	}
}

// lasting is a hook that starts two processes which do not end by themselves, one in a
// session of its own, and writes their numbers to a file.
const lasting = "#!/bin/sh\ntrap '' HUP TERM\nsetsid sleep 1000 & one=$!\nsleep 1000 & two=$!\necho $$ $one $two >pids.new; mv pids.new pids\nwait\n"

// pids waits for the numbers of lasting's processes.
func pids(t *testing.T, dir string) (list []int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); unix.Poll(nil, 5) {
		b, err := os.ReadFile(dir + "/pids")
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(word)
			must(t, err)
			list = append(list, n)
		}
		return list
	}
	t.Fatal("the hook did not begin")
	return nil
}

// gone waits until processes have ended.
func gone(t *testing.T, list []int) {
	t.Helper()
	for _, pid := range list {
		for deadline := time.Now().Add(10 * time.Second); ; unix.Poll(nil, 5) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(b), ") Z ") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("process %d goes on", pid)
			}
		}
	}
}

func TestNothingOfAHookStays(t *testing.T) {
	t.Run("after its time", func(t *testing.T) {
		dir := tree(t, map[string]string{"+scripts/pre-start": "#!/bin/sh\necho working\n" + strings.TrimPrefix(lasting, "#!/bin/sh\n"), "scripts/timeout": "1\n"})
		said, err := runIn(t, t.Context(), dir, nil)
		if err == nil || !strings.Contains(err.Error(), `did not end within 1s and was killed (the file timeout beside it has the limit); its last output: "working"`) {
			t.Errorf("error %v; said %q", err, said)
		}
		gone(t, pids(t, dir))
	})
	t.Run("after the caller gave up", func(t *testing.T) {
		dir := tree(t, map[string]string{"+scripts/pre-start": lasting, "+scripts/pre-start.d/1": says + "no >ran"})
		ctx, cancel := context.WithCancel(t.Context())
		var list []int
		go func() {
			defer cancel()
			list = pids(t, dir)
		}()
		if _, err := runIn(t, ctx, dir, func(c *Call, _ *Set) { c.All = true }); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		gone(t, list)
		if _, err := os.Stat(dir + "/ran"); err == nil {
			t.Error("the next one ran")
		}
	})
	t.Run("after its end, which is reported", func(t *testing.T) {
		dir := tree(t, map[string]string{"+scripts/pre-start": strings.TrimSuffix(lasting, "wait\n")})
		said, err := runIn(t, t.Context(), dir, nil)
		if err != nil || !strings.Contains(said, "/scripts/pre-start left processes behind (2), which were ended: a service of the host ") {
			t.Errorf("said %q, %v", said, err)
		}
		gone(t, pids(t, dir))
	})
	t.Run("after vsnode was killed", func(t *testing.T) {
		dir := tree(t, map[string]string{"+scripts/pre-start": lasting})
		cg := ownCgroup(t)
		cmd := exec.Command("/proc/self/exe", string(cg))
		cmd.Env = append(os.Environ(), asNode+"="+dir)
		must(t, cmd.Start())
		list := pids(t, dir)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		gone(t, list)
		must(t, cg.WaitEmpty(t.Context()))
		must(t, cg.Remove())
	})
}

func TestTimeouts(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, " 90\n": 90 * time.Second, "2m": 2 * time.Minute, "1h": time.Hour, "3600": time.Hour,
		"0": 0, "-5": 0, "3601": 0, "500ms": 0, "": 0, "x": 0, "99999999999999999999": 0, "9223372036854775807": 0,
	} {
		if got, err := parseTimeout(text); (err == nil) != (want != 0) || err == nil && got != want {
			t.Errorf("%q is %v, %v, want %v", text, got, err, want)
		}
	}
}

func FuzzTimeout(f *testing.F) {
	f.Add("5")
	f.Add("2m")
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseTimeout(text); err == nil && (d < time.Second || d > maxTimeout) {
			t.Errorf("%q is %v", text, d)
		}
	})
}
