package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/hook"
)

// plantHook makes an executable hook.
func plantHook(t *testing.T, h *Host, name, file, script string) {
	t.Helper()
	plant(t, h.Paths, name, map[string]string{"scripts/" + file: "#!/bin/sh\n" + script + "\n"})
	must(t, os.Chmod(filepath.Join(h.config(name), "scripts", file), 0o755))
}

// record plants a hook for each phase that notes its call in a file of the host, and
// then does what extra says.
func record(t *testing.T, h *Host, name string, extra map[hook.Phase]string) (log string) {
	t.Helper()
	log = filepath.Join(filepath.Dir(h.DataDir), "log-of-hooks")
	for _, phase := range hook.Phases {
		plantHook(t, h, name, string(phase), `echo "$@" >>`+log+"\n"+extra[phase])
	}
	return log
}

func recorded(t *testing.T, log string) string {
	t.Helper()
	b, err := os.ReadFile(log)
	if !errors.Is(err, os.ErrNotExist) {
		must(t, err)
	}
	must(t, os.WriteFile(log, nil, 0o644))
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", ")
}

// warned returns a context that collects warnings.
func warned() (context.Context, *strings.Builder) {
	var said strings.Builder
	return WithWarn(context.Background(), func(text string) { fmt.Fprintln(&said, text) }), &said
}

func TestHooksComeInOrder(t *testing.T) {
	for _, mode := range []api.Mode{api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			g := inMode(mode, "hooked", 340, "sleep", "1000")
			must(t, h.Create(t.Context(), g))
			// What there is of the guest at each moment.
			see := `pid=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p'); cg=no; test -e "/sys/fs/cgroup/$0" ; test -n "$pid" && cg=process
ip -4 addr show | grep -q 198.51.100.77 && cg="$cg,address"; echo "at $1: $cg"`
			extra := map[hook.Phase]string{}
			for _, phase := range hook.Phases {
				extra[phase] = see
			}
			log := record(t, h, g.Name, extra)
			ctx, said := warned()
			must(t, h.Start(ctx, g.Name, Options{}))
			if got, want := recorded(t, log), "initialize hooked, prepre-start hooked, pre-start hooked, post-start hooked"; got != want {
				t.Errorf("start ran %s, want %s", got, want)
			}
			if err := h.Start(ctx, g.Name, Options{}); !errors.Is(err, ErrRunning) {
				t.Error(err)
			}
			if got := recorded(t, log); got != "" {
				t.Errorf("the start of a running guest ran %s", got)
			}
			_, err := h.Stop(ctx, g.Name)
			must(t, err)
			if got, want := recorded(t, log), "pre-stop hooked, post-stop hooked, postpost-stop hooked"; got != want {
				t.Errorf("stop ran %s, want %s", got, want)
			}
			address := ",address"
			if mode == api.ModeNAT {
				address = ""
			}
			want := ""
			for _, row := range []struct{ phase, what string }{
				{"initialize", "no"}, {"prepre-start", "no"}, {"pre-start", "no" + address}, {"post-start", "process" + address},
				{"pre-stop", "process" + address}, {"post-stop", "no" + address}, {"postpost-stop", "no"},
			} {
				want += row.phase + ": at " + row.phase + ": " + row.what + "\n"
			}
			if said.String() != want {
				t.Errorf("saw\n%s\nwant\n%s", said, want)
			}
			_, err = h.Stop(ctx, g.Name)
			must(t, err)
			if got := recorded(t, log); got != "" {
				t.Errorf("the stop of a stopped guest ran %s", got)
			}
		})
	}
}

func TestHooksReadTheGuestAsJSON(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeShared, "hooked", 341, "sleep", "1000")
	must(t, h.Create(t.Context(), g))
	out := filepath.Join(filepath.Dir(h.DataDir), "json")
	plantHook(t, h, g.Name, "post-start", "cat >"+out)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	b, err := os.ReadFile(out)
	must(t, err)
	var got hookInfo
	must(t, json.Unmarshal(b, &got))
	st, err := h.State(g.Name)
	must(t, err)
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	want := hookInfo{
		Action: "post-start", Name: "hooked", Context: 341, Config: h.config(g.Name), Root: h.rootDir(g.Name), Image: "sha256:test",
		Mode: api.ModeShared, Addresses: []string{hostAddress.String()}, Ports: []string{"8080/tcp"}, Forwards: []string{}, PID: st.InitPID, Cgroup: string(cg),
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("read %+v\nwant %+v", got, want)
	}
}

// Those that come before a start can refuse it: everything is undone. Those that come
// after it cannot.
func TestHooksThatFail(t *testing.T) {
	for _, row := range []struct {
		phase hook.Phase
		fails bool // the start
		runs  string
	}{
		{hook.Initialize, true, "initialize"},
		{hook.PrepreStart, true, "initialize, prepre-start, post-stop, postpost-stop"},
		{hook.PreStart, true, "initialize, prepre-start, pre-start, post-stop, postpost-stop"},
		{hook.PostStart, false, "initialize, prepre-start, pre-start, post-start, pre-stop, post-stop, postpost-stop"},
		{hook.PreStop, false, "initialize, prepre-start, pre-start, post-start, pre-stop, post-stop, postpost-stop"},
		{hook.PostStop, false, "initialize, prepre-start, pre-start, post-start, pre-stop, post-stop, postpost-stop"},
		{hook.PostpostStop, false, "initialize, prepre-start, pre-start, post-start, pre-stop, post-stop, postpost-stop"},
	} {
		t.Run(string(row.phase), func(t *testing.T) {
			h := host(t)
			g := inMode(api.ModeOwn, "failing", 342, "sleep", "1000")
			must(t, h.Create(t.Context(), g))
			log := record(t, h, g.Name, map[hook.Phase]string{row.phase: "echo no luck; exit 3"})
			before := traces(t)
			ctx, said := warned()
			err := h.Start(ctx, g.Name, Options{})
			why := fmt.Sprintf(`scripts/%s: exit status 3; its last output: "no luck"`, row.phase)
			if (err != nil) != row.fails || row.fails && !strings.Contains(err.Error(), why) {
				t.Errorf("start: %v, want %s", err, why)
			}
			if on, err := h.Running(g.Name); err != nil || on == row.fails {
				t.Errorf("it runs: %t, %v", on, err)
			}
			outcome, err := h.Stop(ctx, g.Name)
			if err != nil || (outcome == api.Changed) == row.fails {
				t.Errorf("stop: %s, %v", outcome, err)
			}
			if got := strings.ReplaceAll(recorded(t, log), " failing", ""); got != row.runs {
				t.Errorf("ran %s, want %s", got, row.runs)
			}
			if !row.fails && !strings.Contains(said.String(), why) {
				t.Errorf("said %s, want %s", said, why)
			}
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

// The hooks of a stop also run for a guest that ended by itself, once.
func TestHooksOfAGuestThatEnded(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeOwn, "dying", 343, "sh", "-c", "read x </dev/null; while ! test -e /end; do sleep 0.01; done")
	must(t, h.Create(t.Context(), g))
	log := record(t, h, g.Name, nil)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	recorded(t, log)
	if out, code := run(t, h, g.Name, "sh", "-c", ": >/end"); code != 0 {
		t.Fatal(out)
	}
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, cg.WaitEmpty(t.Context()))
	for _, want := range []string{"post-stop dying, postpost-stop dying", ""} {
		must(t, h.Clean(t.Context()))
		if got := recorded(t, log); got != want {
			t.Errorf("ran %q, want %q", got, want)
		}
	}
}

// initialize may write the configuration.
func TestInitializeWritesTheConfiguration(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeNAT, "young", 344, "sleep", "1000")
	must(t, h.Create(t.Context(), g))
	plantHook(t, h, g.Name, "initialize", `mkdir -p uts; echo written >uts/nodename`)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if out, code := run(t, h, g.Name, "hostname"); out != "written" {
		t.Errorf("its name is %q (%d)", out, code)
	}
}

// A hook that works on its own guest would wait for itself.
func TestHooksCannotCallTheirOwnGuest(t *testing.T) {
	h := host(t)
	dir := filepath.Dir(h.DataDir)
	a, b := inMode(api.ModeNAT, "one", 345, "sleep", "1000"), inMode(api.ModeNAT, "two", 346, "sleep", "1000")
	b.Network.Forwards = nil
	must(t, h.Create(t.Context(), a))
	must(t, h.Create(t.Context(), b))
	must(t, os.MkdirAll(h.ConfigDir+"/.defaults/scripts", 0o755))
	plant(t, h.Paths, "one", map[string]string{"scripts/timeout": "20\n"})
	node := func(call string) string { return asNode + "='" + call + " " + dir + "' " + testBinary(t) }
	for _, row := range []struct{ what, one, two, want string }{
		{"stop of itself", node("stop one"), "true", "stop guest one: it is called from a hook of this guest"},
		{"by way of another guest's hook", node("start two"), node("stop one"), "stop guest one: it is called from a hook of this guest"},
		{"another guest", node("start two"), "echo fine", ""},
		{"a program in the guest", asNode + "='exec one " + dir + "' " + execLine + "='exit 0' " + testBinary(t), "true", ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			plantHook(t, h, "one", "post-start", row.one)
			plantHook(t, h, "two", "pre-start", row.two)
			ctx, said := warned()
			begun := time.Now()
			must(t, h.Start(ctx, "one", Options{}))
			if got := said.String(); !strings.Contains(got, row.want) || row.want == "" && strings.Contains(got, "exit status") || time.Since(begun) > 15*time.Second {
				t.Errorf("said %s after %s, want %s", got, time.Since(begun), row.want)
			}
			for _, name := range []string{"one", "two"} {
				_, err := h.Stop(ctx, name)
				must(t, err)
			}
		})
	}
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

// What a guest can write is not run by the host, whoever owns it.
func TestHooksOfAGuestsOwnAreRefused(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeNAT, "sly", 347, "sleep", "1000")
	must(t, h.Create(t.Context(), g))
	shared := filepath.Join(filepath.Dir(h.DataDir), "shared")
	must(t, os.MkdirAll(shared, 0o700))
	must(t, os.MkdirAll(filepath.Join(h.rootDir(g.Name), "mnt"), 0o755))
	plant(t, h.Paths, g.Name, map[string]string{"fstab": shared + " /mnt none bind 0 0\n"})
	for _, dir := range []string{h.rootDir(g.Name), shared} {
		must(t, os.WriteFile(dir+"/hook", []byte("#!/bin/sh\n"), 0o755))
		must(t, errors.Join(os.MkdirAll(h.config(g.Name)+"/scripts", 0o755), remove(h.config(g.Name)+"/scripts/pre-start")))
		plant(t, h.Paths, g.Name, map[string]string{"scripts/pre-start": "->" + dir + "/hook"})
		if err := h.Start(t.Context(), g.Name, Options{}); err == nil || !strings.Contains(err.Error(), "guest sly can write it, as it is below "+dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	must(t, os.Remove(h.config(g.Name)+"/scripts/pre-start"))
	plantHook(t, h, g.Name, "pre-start", "true")
	must(t, os.Chown(h.config(g.Name)+"/scripts/pre-start", 1000, 1000))
	if err := h.Start(t.Context(), g.Name, Options{}); err == nil || !strings.Contains(err.Error(), "scripts/pre-start: ") || !strings.Contains(err.Error(), "belongs to user 1000") {
		t.Errorf("a user's: %v", err)
	}
	st, err := h.State(g.Name)
	if err != nil || len(api.Refusing(st.Unread)) != 1 {
		t.Errorf("the state has %+v (%v)", st.Unread, err)
	}
}

// A vsnode is killed while a hook runs: the hook ends, and the same call finishes.
func TestKilledInAHook(t *testing.T) {
	for _, phase := range []hook.Phase{hook.Initialize, hook.PrepreStart, hook.PreStart, hook.PostStart, hook.PreStop, hook.PostStop, hook.PostpostStop} {
		t.Run(string(phase), func(t *testing.T) {
			h := host(t)
			dir := filepath.Dir(h.DataDir)
			g := inMode(api.ModeOwn, "cut", 348, "sleep", "1000")
			must(t, h.Create(t.Context(), g))
			must(t, h.Start(t.Context(), g.Name, Options{}))
			verb := "stop"
			before := ""
			if !strings.HasSuffix(string(phase), "stop") {
				_, err := h.Stop(t.Context(), g.Name)
				must(t, err)
				verb, before = "start", traces(t)
			}
			hang := fmt.Sprintf("test -e %s/on || { sleep 1000 & echo $! >%s/pid.new; mv %s/pid.new %s/pid; wait; }", dir, dir, dir, dir)
			log := record(t, h, g.Name, map[hook.Phase]string{phase: hang})
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), asNode+"="+strings.Join([]string{verb, g.Name, dir}, " "))
			must(t, cmd.Start())
			var pid int
			for deadline := time.Now().Add(20 * time.Second); pid == 0; unix.Poll(nil, 5) {
				if b, err := os.ReadFile(dir + "/pid"); err == nil {
					fmt.Sscan(string(b), &pid)
				}
				if time.Now().After(deadline) {
					t.Fatal("the hook did not begin")
				}
			}
			must(t, cmd.Process.Kill())
			_ = cmd.Wait() // killed
			must(t, os.WriteFile(dir+"/on", nil, 0o644))
			if verb == "start" {
				if err := h.Start(t.Context(), g.Name, Options{}); err != nil && !errors.Is(err, ErrRunning) {
					t.Fatal(err)
				}
			}
			for deadline := time.Now().Add(10 * time.Second); unix.Kill(pid, 0) == nil; unix.Poll(nil, 5) {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(b), ") Z ") {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("what the hook started goes on")
				}
			}
			if got := recorded(t, log); verb == "start" && !strings.HasSuffix(got, "post-start cut") {
				t.Errorf("ran %s", got)
			}
			_, err := h.Stop(t.Context(), g.Name)
			must(t, err)
			if got := recorded(t, log); !strings.HasSuffix(got, "postpost-stop cut") {
				t.Errorf("the stop ran %s", got)
			}
			if after := traces(t); before != "" && after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
			if left, err := filepath.Glob("/sys/fs/cgroup/*/vservers/.hook-*"); err != nil || len(left) > 0 {
				t.Errorf("left over: %s %v", left, err)
			}
		})
	}
}

// What a hook that succeeds prints is not a warning.
func TestOutputOfHooksIsNotAWarning(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeShared, "hooked", 342, "sleep", "1000")
	must(t, h.Create(t.Context(), g))
	plantHook(t, h, g.Name, "post-start", "echo done")
	plantHook(t, h, g.Name, "pre-stop", "echo one; echo two; exit 7")
	ctx, said := warned()
	var output []string
	ctx = WithOutput(ctx, func(line string) { output = append(output, line) })
	must(t, h.Start(ctx, g.Name, Options{}))
	_, err := h.Stop(ctx, g.Name)
	must(t, err)
	if got := strings.Join(output, ", "); got != "post-start: done, pre-stop: one" {
		t.Errorf("output %q", got)
	}
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `exit status 7; its last output: "two"`) {
		t.Errorf("warnings %q", got)
	}
}
