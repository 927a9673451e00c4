package remote

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/push/pushtest"
)

// vsnode serves in one session; everything else needs another.
func TestAHostThatGivesOneSession(t *testing.T) {
	h := newHost(t, "", "MaxSessions 1")
	n := h.start()
	for range 2 {
		var out bytes.Buffer
		if exit, err := n.Run(t.Context(), nil, &out, nil, "echo", "a", "b"); exit != 0 || err != nil || out.String() != "a|b" {
			t.Errorf("exit %d, error %v, stdout %q", exit, err, &out)
		}
	}
	if _, err := n.State(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestChatterOfALoginShell(t *testing.T) {
	h := newHost(t, `echo "Welcome to web1!"; printf "\000vsnode-serve-2\n\000\000vsnode\n"; echo "bash: cannot set terminal" >&2`)
	n := h.start()
	if _, err := n.State(t.Context()); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	args := []string{"a b", "it's", `"$HOME"`, "!x", ""}
	exit, err := n.Run(t.Context(), nil, &out, nil, append([]string{"echo"}, args...)...)
	if exit != 0 || err != nil || out.String() != strings.Join(args, "|") {
		t.Errorf("exit %d, error %v, stdout %q", exit, err, &out)
	}
	out.Reset()
	data := strings.Repeat("\x00vsfleet-run-1 1\n", 100_000)
	exit, err = n.Run(t.Context(), strings.NewReader(data), &out, nil, "cat")
	if exit != 7 || err != nil || out.String() != data {
		t.Errorf("exit %d, error %v, %d bytes of %d", exit, err, out.Len(), len(data))
	}
}

// hostileArgs would be a command, or another word, to some shell.
func hostileArgs(file string) []string {
	return []string{
		"a b", "", "it's", `"$HOME"`, "$(touch " + file + ")", "`touch " + file + "`", "; touch " + file,
		"'; touch " + file + "; '", `\'; touch ` + file + "; #", `\'\''; touch ` + file + ` \'`, `a\\b`, `\`, "!x", "!!", "%s %n", "two\nlines",
		"\xff\xfe", "*", "~", "{a,b}", "(touch " + file + ")", "\t", "-n", "é\u202e",
	}
}

func TestArgumentsThroughLoginShells(t *testing.T) {
	for _, sh := range pushtest.LoginShells {
		t.Run(sh, func(t *testing.T) {
			h := newHost(t, "exec "+sh+` -c "$SSH_ORIGINAL_COMMAND"`)
			n := h.start()
			file := filepath.Join(t.TempDir(), "touched")
			args := hostileArgs(file)
			for _, more := range []string{"hello", `\'`} { // what each ends with
				var out bytes.Buffer
				args := append(args, more)
				exit, err := n.Run(t.Context(), nil, &out, nil, append([]string{"echo"}, args...)...)
				if exit != 0 || err != nil || out.String() != strings.Join(args, "|") {
					t.Errorf("exit %d, error %v, stdout %q", exit, err, &out)
				}
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("an argument ran as a command of the host")
			}
		})
	}
}

func TestARunThatDidNotBeginIsAnError(t *testing.T) {
	h := newHost(t, `case $SSH_ORIGINAL_COMMAND in *vsfleet-run-1*) echo "fish: Unknown command" >&2; exit 0;; esac`)
	n := h.start()
	_, err := n.Run(t.Context(), nil, nil, nil, "echo")
	if err == nil || !strings.Contains(err.Error(), "the command did not begin (exit status 0), the host said: \"fish: Unknown command\"") {
		t.Errorf("error %v", err)
	}
}
