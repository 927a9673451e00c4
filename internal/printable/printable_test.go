package printable

import "testing"

func TestLines(t *testing.T) {
	for in, want := range map[string]string{
		"plain, Füße":              "plain, Füße",
		"\x1b[2J\x07":              `\x1b[2J\a`,
		"\xff\x9b":                 `\xff\x9b`,
		"two\nlines\tand \u202e":   "two\nlines and \\u202e",
		"C1 \u009b31m, DEL \u007f": `C1 \u009b31m, DEL \x7f`,
	} {
		if got := Lines(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
