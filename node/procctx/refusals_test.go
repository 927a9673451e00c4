package procctx

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

var update = flag.Bool("update", false, "write the table of docs/security.md anew")

func TestRefusalsAreDocumented(t *testing.T) {
	const page, begin, end = "../../docs/security.md", "| call | answer | for | why |\n|---|---|---|---|\n", "\n\n"
	var table strings.Builder
	table.WriteString(begin)
	for i := 0; i < len(Refusals); {
		r := Refusals[i]
		var calls []string
		for ; i < len(Refusals) && Refusals[i].Errno == r.Errno && Refusals[i].Why == r.Why && Refusals[i].When == r.When; i++ {
			call := Refusals[i].Call
			if !strings.Contains(call, " ") {
				call = "`" + call + "`"
			}
			if Refusals[i].amd {
				call += " (amd64)"
			}
			calls = append(calls, call)
		}
		when := map[When]string{Always: "all guests, builds", NoNesting: "guests without [nesting](guests.md#nesting)", NoRaw: "all, but in nat with [`raw`](networks.md#raw-and-packet-sockets)"}[r.When]
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", strings.Join(calls, ", "), unix.ErrnoName(r.Errno), when, r.Why)
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		head, rest, _ := strings.Cut(string(b), begin)
		_, tail, _ := strings.Cut(rest, end)
		if err := os.WriteFile(page, []byte(head+table.String()+"\n"+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !strings.Contains(string(b), table.String()) {
		t.Errorf("%s does not have the table of refusals: go test ./node/procctx -run %s -update", page, t.Name())
	}
}

func TestEveryRefusalIsWhatTheFilterDoes(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Refusals {
		if seen[r.Call] || r.Why == "" {
			t.Errorf("%+v", r)
		}
		seen[r.Call] = true
		if r.nr == anyArch {
			continue
		}
		for _, spec := range []struct{ private, nesting, raw bool }{{}, {private: true}, {nesting: true}, {private: true, raw: true}, {true, true, true}} {
			want := seccompAllow
			if r.applies(spec.private, spec.nesting, spec.raw) {
				want = seccompErrno | int(r.Errno)
			}
			if got := answer(t, filterRules(spec.private, spec.nesting, spec.raw), r.nr, r.args); got != want {
				t.Errorf("%s with %+v: %#x, want %#x", r.Call, spec, got, want)
			}
		}
	}
}

// The kernel keeps a bitmap of the calls that a filter allows by their number alone, and
// does not run it for them (seccomp_is_const_allow in kernel/seccomp.c).
func TestMostCallsNeverRunTheFilter(t *testing.T) {
	for _, nesting := range []bool{false, true} {
		rules := filterRules(false, nesting, false)
		for nr := range uint32(470) {
			var want bool
			switch nr {
			case unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_IOCTL:
			case unix.SYS_CLONE, unix.SYS_UNSHARE, unix.SYS_CLONE3:
				want = nesting
			default:
				want = answer(t, rules, nr, nil) == seccompAllow
			}
			if got := constAllow(rules, nr); got != want {
				t.Errorf("nesting %t, call %d: the bitmap has it: %t, want %t", nesting, nr, got, want)
			}
		}
	}
}

// constAllow is the kernel's decision.
func constAllow(rules []bpf.Instruction, nr uint32) bool {
	var a uint32
	for pc := 0; pc < len(rules); pc++ {
		switch in := rules[pc].(type) {
		case bpf.LoadAbsolute:
			switch in.Off {
			case offNr:
				a = nr
			case offArch:
				a = auditArch
			default:
				return false // an argument
			}
		case bpf.JumpIf:
			yes := map[bpf.JumpTest]bool{bpf.JumpEqual: a == in.Val, bpf.JumpGreaterOrEqual: a >= in.Val, bpf.JumpBitsSet: a&in.Val != 0}[in.Cond]
			if yes {
				pc += int(in.SkipTrue)
			} else {
				pc += int(in.SkipFalse)
			}
		case bpf.RetConstant:
			return in.Val == seccompAllow
		default:
			return false
		}
	}
	return false
}

func init() {
	// Makes each call of the table and prints what the kernel answers.
	insides["refusals"] = func() {
		runtime.LockOSThread()
		for _, r := range Refusals {
			if r.nr == anyArch || r.amd && runtime.GOARCH != "amd64" {
				continue
			}
			args := [6]uintptr{}
			for i := range args {
				args[i] = ^uintptr(0)
			}
			with := r.args
			if with == nil {
				with = r.probe
			}
			for i, a := range with {
				args[i] = uintptr(a)
			}
			_, _, errno := unix.RawSyscall6(uintptr(r.nr), args[0], args[1], args[2], args[3], args[4], args[5])
			fmt.Printf("%s: %d\n", r.Call, errno)
		}
		fmt.Println("done")
		if os.Getpid() == 1 {
			unix.Pause()
		}
	}
}

// refused compares what the calls of the table answered with the table.
func refused(t *testing.T, out string, nesting bool, inGuest bool) {
	t.Helper()
	for _, r := range Refusals {
		if r.nr == anyArch || !r.applies(false, nesting, false) || !inGuest && r.Why == removed {
			continue
		}
		_, got, found := strings.Cut("\n"+out, "\n"+r.Call+": ")
		got, _, _ = strings.Cut(got, "\n")
		if is := got == fmt.Sprint(int(r.Errno)); !found || is != inGuest {
			t.Errorf("%s: answers %q, the table has %d", r.Call, got, r.Errno)
		}
	}
}

func TestRefusalsHoldInTheKernel(t *testing.T) {
	probe := func(prepare func() error) string {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{inside + "=refusals"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // vhangup has no terminal
		var out []byte
		_, err := linux.OnOwnThread(func() (none struct{}, err error) {
			if err = prepare(); err == nil {
				out, err = cmd.CombinedOutput()
			}
			return none, err
		})
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	t.Run("control: outside they answer something else", func(t *testing.T) {
		refused(t, probe(func() error { return nil }), false, false)
	})
	t.Run("builds", func(t *testing.T) { refused(t, probe(FilterThread), true, true) })

	sp, cg := guest(t, 350)
	asProgram(t, &sp, "refusals")
	p, err := Start(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("start", func(t *testing.T) { refused(t, console(t, sp, "done"), false, true) })
	t.Run("enter and exec", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		run, err := Exec(context.Background(), Command{
			InitPID: p.PID, Cgroup: cg, Scope: sp.Scope, Caps: sp.Caps, Argv: sp.Argv, Env: sp.Env, Stdin: null, Stdout: w, Stderr: w,
		})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if code, err := run.Wait(); code != 0 || err != nil {
			t.Errorf("exit status %d, %v", code, err)
		}
		refused(t, string(out), false, true)
	})
}
