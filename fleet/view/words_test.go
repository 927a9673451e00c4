package view

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, row := range []struct {
		name  string
		words []string
		want  string
	}{
		{"plain words stay as they are", []string{"run", "-l", "web01,db1", "--forks=3", "100%", "Füße"}, "run -l web01,db1 --forks=3 100% Füße"},
		{"a script is one word", []string{"run", "--", "sh", "-c", "echo begin; sleep 6"}, "run -- sh -c 'echo begin; sleep 6'"},
		{"quotes and patterns", []string{"it's", `"$HOME"`, "*", "~", "", "=x"}, `'it'\''s' '"$HOME"' '*' '~' '' '=x'`},
		{"several lines, tabs and commands for a terminal", []string{"a\nb\t'\\", "\x1b[2J\u202e", "\xff1"}, `$'a\nb\t\'\\' $'\033[2J\342\200\256' $'\3771'`},
	} {
		t.Run(row.name, func(t *testing.T) {
			line := CommandLine(row.words)
			if line != row.want {
				t.Errorf("got %s, want %s", line, row.want)
			}
			out, err := exec.CommandContext(t.Context(), "bash", "-c", `printf '%s\0' `+line).Output()
			if back := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); err != nil || !slices.Equal(back, row.words) {
				t.Errorf("bash reads %q, %v", back, err)
			}
		})
	}
}
