package guest

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// TestProgramsOptions: the user with its home, the directory and the environment of a
// program, and its words as they are.
func TestProgramsOptions(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "options", 170, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	show := []string{"sh", "-c", `id -u; pwd; echo "$HOME $USER $A"; env | grep -c ^PATH=`}
	for _, row := range []struct {
		name string
		p    Program
		out  string // or the error
		not  error
	}{
		{"without options it is root in /", Program{Argv: show}, "0\n/\n/root  \n1\n", nil},
		{"an account by name has its home", Program{Argv: show, Account: "www"}, "33\n/\n/ www \n1\n", nil},
		{"an account by number, which needs no entry", Program{Argv: show, Account: "44"}, "44\n/\n/  \n1\n", nil},
		{"a directory, and variables over ours", Program{Argv: show, Dir: "/tmp", Env: []string{"A=1 2", "HOME=/x", "PATH=/bin:/sbin"}}, "0\n/tmp\n/x  1 2\n1\n", nil},
		{"words are kept, whatever is in them", Program{Argv: []string{"sh", "-c", `for w; do echo "<$w>"; done`, "sh", "a b", "", "*", "$HOME", "x\ny", "'\"\\"}},
			"<a b>\n<>\n<*>\n<$HOME>\n<x\ny>\n<'\"\\>\n", nil},
		{"an account that is not there", Program{Argv: show, Account: "nobody"}, `no user "nobody"`, os.ErrInvalid},
		{"a directory that is not there", Program{Argv: show, Dir: "/none"}, "enter /none: no such file or directory", os.ErrInvalid},
		{"a directory of the caller's", Program{Argv: show, Dir: "tmp"}, `directory "tmp": want a path`, os.ErrInvalid},
		{"an environment without a value", Program{Argv: show, Env: []string{"A"}}, `environment "A": want NAME=VALUE`, os.ErrInvalid},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out bytes.Buffer
			code, err := h.RunOver(ctx, g.Name, row.p, Streams{In: strings.NewReader(""), Out: &out, Errs: io.Discard})
			switch {
			case row.not != nil:
				if err == nil || !strings.Contains(err.Error(), row.out) {
					t.Errorf("error %v, want %q", err, row.out)
				}
			case err != nil || code != 0 || out.String() != row.out:
				t.Errorf("%q, status %d, %v; want %q", out.String(), code, err, row.out)
			}
		})
	}
}

// asked runs a line in a guest, as vserver NAME exec does, in a process of its own.
func asked(h *Host, guest, line string, tty string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asNode+"=exec "+guest+" "+filepath.Dir(h.DataDir), execLine+"="+line, execTty+"="+tty)
	return cmd
}

func TestTerminalsOnDemand(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "demand", 171, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	const line = "for f in 0 1; do [ -t $f ] && echo holds $f; done; cat; exit 7"
	t.Run("always, though the input is none: its end ends the input", func(t *testing.T) {
		cmd := asked(h, g.Name, line, "1")
		cmd.Stdin = strings.NewReader("piped")
		out, err := cmd.CombinedOutput()
		// The terminal shows the input when it is typed, amid the output or before it.
		got := strings.NewReplacer("^D", "", "\b", "", "piped", "").Replace(string(out))
		if err == nil || got != "holds 0\r\nholds 1\r\nexit status 7\n" || strings.Count(string(out), "piped") != 2 {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("never, though the caller is on one", func(t *testing.T) {
		ours, theirs := hostTerminal(t)
		cmd := asked(h, g.Name, line, "2")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
		must(t, cmd.Start())
		theirs.Close()
		_, err := ours.WriteString("typed\n\x04")
		must(t, err)
		err = cmd.Wait()
		shown, _ := io.ReadAll(ours) // EIO marks the end
		if err == nil || strings.Contains(string(shown), "holds") || !strings.Contains(string(shown), "typed\r\nexit status 7") && !strings.Contains(string(shown), "typed\r\ntyped\r\n") {
			t.Errorf("%q, %v", shown, err)
		}
	})
}

// TestSignalsOfTheCallerReachTheProgram: what a person or a supervisor sends to vserver
// is for the program in the guest, and its end is vserver's.
func TestSignalsOfTheCallerReachTheProgram(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "signalled", 172, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	for _, row := range []struct {
		name, line string
		sig        unix.Signal
		out        string
	}{
		{"a program may take SIGTERM and go on", `trap "echo caught; exit 3" TERM; echo up; while :; do sleep 0.01; done`, unix.SIGTERM, "caught\nexit status 3\n"},
		{"SIGINT ends it, with its children", "echo up; sleep 1000", unix.SIGINT, "exit status 130\n"},
		{"SIGTERM ends it", "echo up; exec sleep 1000", unix.SIGTERM, "exit status 143\n"},
		{"SIGHUP hangs it up", "echo up; exec sleep 1000", unix.SIGHUP, "exit status 129\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cmd := asked(h, g.Name, row.line, "0")
			r, w, err := os.Pipe()
			must(t, err)
			defer r.Close()
			cmd.Stdout, cmd.Stderr = w, w
			must(t, cmd.Start())
			w.Close()
			must(t, r.SetReadDeadline(time.Now().Add(20*time.Second)))
			up := make([]byte, 3)
			if _, err := io.ReadFull(r, up); err != nil || string(up) != "up\n" {
				t.Fatalf("%q, %v", up, err)
			}
			must(t, cmd.Process.Signal(row.sig))
			out, err := io.ReadAll(r)
			must(t, err)
			if cmd.Wait() == nil || string(out) != row.out {
				t.Errorf("%q, want %q", out, row.out)
			}
		})
	}
	// Nothing is left of them.
	st, err := h.State(g.Name)
	must(t, err)
	if st.Processes != 1 {
		t.Errorf("%d processes", st.Processes)
	}
}

func TestSignalToProcessesOfAGuest(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "killed", 173, "sh", "-c", `trap "echo hup" HUP; sleep 1000 & sleep 1000 & while :; do sleep 0.02; done`)
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	other := inMode(api.ModeNAT, "bystander", 174, "sleep", "1000")
	other.Network.Forwards = nil
	must(t, h.Create(ctx, other))
	must(t, h.Start(ctx, other.Name, Options{}))
	sleeps := func() (pids []int) {
		all, err := h.Processes(ctx)
		must(t, err)
		for pid, l := range all {
			b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
			if l.Name == g.Name && l.Context == 173 && string(b) == "sleep\x001000\x00" {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	eventually(t, func() string { return "two sleep" }, func() bool { return len(sleeps()) == 2 })
	one := sleeps()[0]
	if err := h.Signal(other.Name, one, unix.SIGKILL); err == nil || !strings.Contains(err.Error(), "it is not the guest's") {
		t.Errorf("a process of another guest: %v", err)
	}
	if err := h.Signal(g.Name, os.Getpid(), unix.SIGKILL); err == nil || !strings.Contains(err.Error(), "it is not the guest's") {
		t.Errorf("a process of the host: %v", err)
	}
	must(t, h.Signal(g.Name, one, unix.SIGKILL))
	eventually(t, func() string { return "one sleeps" }, func() bool { return len(sleeps()) == 1 })
	must(t, h.Signal(g.Name, InitProcess, unix.SIGHUP))
	eventually(t, func() string { return logOf(t, h, g.Name, 9) }, func() bool { return logOf(t, h, g.Name, 9) == "hup\n" })
	must(t, h.Signal(g.Name, AllButInit, unix.SIGKILL))
	eventually(t, func() string { return "none sleeps" }, func() bool { return len(sleeps()) == 0 })
	must(t, h.Signal(g.Name, AllProcesses, unix.SIGKILL))
	eventually(t, func() string { return "it is ended" }, func() bool { on, err := h.Running(g.Name); return err == nil && !on })
	if on, err := h.Running(other.Name); err != nil || !on {
		t.Errorf("the other guest runs: %v, %v", on, err)
	}
}

func TestUTSOfARunningGuest(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "uts", 175, "sleep", "1000")
	g.Hostname = "inside"
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	before, err := os.Hostname()
	must(t, err)
	must(t, h.SetUTS(g.Name, "renamed", "example.org"))
	u, err := h.UTS(g.Name)
	must(t, err)
	if unix.ByteSliceToString(u.Nodename[:]) != "renamed" || unix.ByteSliceToString(u.Domainname[:]) != "example.org" {
		t.Errorf("%s.%s", u.Nodename, u.Domainname)
	}
	if got, _ := run(t, h, g.Name, "hostname"); got != "renamed" {
		t.Errorf("inside it is %q", got)
	}
	if after, err := os.Hostname(); err != nil || after != before {
		t.Errorf("the host is %q, was %q", after, before)
	}
}

func TestRescueReplacesTheInitForOneStart(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "rescued", 176, "false")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{Rescue: &Rescue{}}))
	if got, _ := run(t, h, g.Name, "sh", "-c", "cat /proc/[0-9]*/cmdline"); !strings.Contains(got, "/bin/sleep\x00900") {
		t.Errorf("it runs %q", got)
	}
	_, err := h.Stop(ctx, g.Name)
	must(t, err)
	must(t, h.Start(ctx, g.Name, Options{Rescue: &Rescue{Command: []string{"sleep", "901"}}}))
	c, err := h.Read(g.Name)
	must(t, err)
	if c.Init.Command[0] != "false" {
		t.Errorf("the configuration has %q", c.Init.Command)
	}
}

// TestTheGuestsTerminalIsLikeTheCallers: its size at the beginning and after each change,
// and keys as they are typed: Ctrl-C is for the program.
func TestTheGuestsTerminalIsLikeTheCallers(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "window", 178, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	ours, theirs := hostTerminal(t)
	resize := func(rows, columns uint16) {
		must(t, unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
	}
	resize(30, 100)
	cmd := asked(h, g.Name, `trap "busybox stty size" WINCH; busybox stty size; while :; do sleep 0.02; done`, "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	must(t, cmd.Start())
	theirs.Close()
	shown := make(chan string)
	go func() {
		defer close(shown)
		for b := make([]byte, 4096); ; {
			n, err := ours.Read(b) // EIO marks the end
			if err != nil {
				return
			}
			shown <- string(b[:n])
		}
	}()
	all := ""
	until := func(want string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for !strings.Contains(all, want) {
			select {
			case s, ok := <-shown:
				if !ok {
					t.Fatalf("%q ended without %q", all, want)
				}
				all += s
			case <-deadline:
				t.Fatalf("%q has no %q", all, want)
			}
		}
	}
	until("30 100\r\n")
	resize(40, 120)
	until("40 120\r\n")
	_, err := ours.WriteString("\x03")
	must(t, err)
	until("exit status 130")
	if cmd.Wait() == nil {
		t.Error("it ended well")
	}
}
