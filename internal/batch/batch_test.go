package batch

import (
	"fmt"
	"strings"
	"testing"
)

func TestSizes(t *testing.T) {
	for _, row := range []struct {
		name, text string
		total      int
		want       string // the batches, or a part of the error
	}{
		{"a host, a tenth, the rest", "1,10%,100%", 40, "[1 4 35]"},
		{"the last size repeats", "1,2", 6, "[1 2 2 1]"},
		{"percentages are rounded down, to one host at least", "10%", 5, "[1 1 1 1 1]"},
		{"spaces are no mistake", "1, 100%", 3, "[1 2]"},
		{"more than there are", "10", 3, "[3]"},
		{"no hosts have no batch", "10", 0, "[]"},
		{"a batch of none", "0", 3, "at least one host"},
		{"a batch of no percent", "0%", 3, "at least one host"},
		{"more than all", "101%", 3, "from 0% to 100%"},
		{"a negative number", "-1", 3, `have "-1"`},
		{"a sign", "+1", 3, `have "+1"`},
		{"a fraction", "1.5", 3, `have "1.5"`},
		{"an empty part", "1,,2", 3, `have ""`},
		{"nothing but a percent sign", "%", 3, `have "%"`},
		{"a number beyond all fleets", "99999999999999999999", 3, "want a number"},
	} {
		t.Run(row.name, func(t *testing.T) {
			sizes, err := ParseSizes(row.text)
			got := fmt.Sprint(Cut(row.total, sizes))
			if err != nil {
				got = err.Error()
			}
			if got != row.want && (err == nil || !strings.Contains(got, row.want)) {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
	if got := Cut(3, nil); fmt.Sprint(got) != "[3]" {
		t.Errorf("no sizes: %v", got)
	}
	if (Size{}).IsSet() || !Count(0).IsSet() || (Size{}).String() != "" {
		t.Error("no size and a size of 0 are the same")
	}
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"1", "10%", "0", "100%", "007", "%", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err != nil {
			return
		}
		if again, err := ParseSize(size.String()); err != nil || again != size {
			t.Errorf("%q is %+v, which is written as %q and read as %+v, %v", text, size, size, again, err)
		}
		if n := size.Of(1000); n < 0 || size.percent && n > 1000 {
			t.Errorf("%q of 1000 is %d", text, n)
		}
	})
}
