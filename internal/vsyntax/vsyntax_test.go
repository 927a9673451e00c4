package vsyntax

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var colours = Table{What: "colour", Prefixes: []string{"vxf_"}, Flags: []Flag{
	{[]string{"red", "info_red"}, 1}, {[]string{"green"}, 2}, {[]string{"blue"}, 1 << 32}, {[]string{"warm"}, 1 | 8}, {[]string{"grey"}, 8},
}}

func TestListsOfFlags(t *testing.T) {
	for _, row := range []struct {
		what, text string
		from, want uint64
		err        string
	}{
		{"an empty list", "", 5, 5, ""},
		{"commas, blanks, lines", "red,green\n  blue\tgrey\r\n", 0, 1 | 2 | 8 | 1<<32, ""},
		{"either case, prefixes, other names", "VXF_Red\ninfo_red,GREEN", 0, 3, ""},
		{"bits", "^0,^32", 0, 1 | 1<<32, ""},
		{"numbers are masks", "1,^1,~^1,8", 0, 9, ""},
		{"hexadecimal", "0x3", 0, 3, ""},
		{"taken away", "~red !green", 3, 0, ""},
		{"taken away twice is given", "~!red", 0, 1, ""},
		{"later words override", "red\n~red\nred", 0, 1, ""},
		{"all of them", "all", 0, 11 | 1<<32, ""},
		{"all but one", "any,~blue", 0, 11, ""},
		{"none", "~all\nred", 2, 1, ""},
		{"comments", "# red\n  # green\nblue", 0, 1 << 32, ""},
		{"a mistyped word", "red\n green, bleu", 0, 3, `2:9: unknown colour "bleu"; did you mean blue?`},
		{"a strange word", "~xyzzy", 0, 0, `1:1: unknown colour "~xyzzy"`},
		{"a bit that is none", "^5", 0, 0, `1:1: "^5": no colour has this number`},
		{"a bit beyond", "^64", 0, 0, `1:1: "^64": no colour has this number`},
		{"a mask with more", "0x7", 0, 0, `1:1: "0x7": there is no colour 0x4`},
		{"nothing to take away", "~", 0, 0, `1:1: unknown colour "~"`},
		{"no number", "1x", 0, 0, `1:1: "1x": want a number, as 4096, 0x1000, 4k (4000) or 4K (4096)`},
	} {
		t.Run(row.what, func(t *testing.T) {
			items, err := colours.Parse(row.text)
			if got := Apply(row.from, items); got != row.want || fmt.Sprint(err) != row.err && (err != nil || row.err != "") {
				t.Errorf("%#x, %v; want %#x, %s", got, err, row.want, row.err)
			}
		})
	}
	if got := strings.Join(colours.Names(9), " "); got != "red warm grey" {
		t.Errorf("names: %s", got)
	}
}

func TestWordsHaveTheirPlace(t *testing.T) {
	want := []Word{{"a", 1, 1}, {"b", 1, 4}, {"c", 3, 2}}
	if d := cmp.Diff(want, Words("a, b\n#x\n\tc")); d != "" {
		t.Error(d)
	}
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "7": "7", "1k": "1000", "1K": "1024", "2m": "2000000", "2M": "2097152", "1g": "1000000000", "1G": "1073741824",
		"0x10": "16", "0X1f": "31", "0x1K": "1024", "9223372036854775807": "9223372036854775807",
		"9223372036854775808": "too large", "9007199254740992K": "too large", "99999999999999999999": "want a number",
		"": "want a number", "K": "want a number", "-1": "want a number", "+1": "want a number", "010": "want a number", "1.5G": "want a number",
		"0x": "want a number", "1KK": "want a number", "1T": "want a number", "1_000": "want a number", "inf": "want a number", "0xk": "want a number",
	} {
		n, err := Number(text)
		if got := fmt.Sprint(n); err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Number(%q) = %d, %v, want %s", text, n, err, want)
		}
	}
	for _, text := range []string{"inf", "INF", "infinite", "-1"} {
		if n, err := Limit(text); n != Infinity || err != nil {
			t.Errorf("Limit(%q) = %d, %v", text, n, err)
		}
	}
	if n, err := Limit("4k"); n != 4000 || err != nil {
		t.Errorf("4k is %d, %v", n, err)
	}
}

// Whatever a file holds, words lie where they say, and what is read can be read again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"red,~green\n^3", "all !any 0x3", "#\n\t,, ~~!x", "^99999999999999999999", "\x00é,\r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.SplitAfter(text, "\n")
		for _, w := range Words(text) {
			if at := lines[w.Line-1][w.Column-1:]; !strings.HasPrefix(at, w.Text) || w.Text == "" {
				t.Errorf("%+v is not in %q", w, text)
			}
		}
		items, _ := colours.Parse(text)
		mask := Apply(0, items)
		again, err := colours.Parse(strings.Join(colours.Names(mask), ","))
		if err != nil || Apply(0, again) != mask {
			t.Errorf("%#x is read again as %#x, %v", mask, Apply(0, again), err)
		}
		for _, w := range Words(text) {
			if n, err := Number(w.Text); err == nil {
				if m, err := Number(fmt.Sprint(n)); m != n || err != nil {
					t.Errorf("%q is %d, and that %d, %v", w.Text, n, m, err)
				}
			}
		}
	})
}
