package nodeset

import (
	"slices"
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	for _, c := range []struct{ name, hosts, want string }{
		{"nothing", "", ""},
		{"one host", "db1", "db1"},
		{"a range", "web01 web02 web03", "web[01-03]"},
		{"single numbers", "web07 web09 web33", "web[07,09,33]"},
		{"ranges and numbers, out of order", "web3 web9 web1 web2 web7", "web[1-3,7,9]"},
		{"as people count", "web10 web9 web2", "web[2,9-10]"},
		{"leading zeros run out", "n08 n09 n10 n11", "n[08-11]"},
		{"the digits that zeros filled run out", "n01 n02 n99 n100", "n[01-02,99-100]"},
		{"the width that zeros filled runs out", "n08 n09 n099 n100", "n[08-09,099-100]"},
		{"two digits run out", "n01 n98 n99 n100", "n[01,98-100]"},
		{"with and without leading zeros", "n1 n01 n2", "n[01,1-2]"},
		{"duplicates", "a1 a1 a2", "a[1-2]"},
		{"names of domains", "web01.example.net web02.example.net web01.example.org", "web[01-02].example.net,web01.example.org"},
		{"addresses", "203.0.113.11 203.0.113.12 203.0.113.13", "203.0.113.[11-13]"},
		{"two numbers, one differs", "r1n1 r1n2 r1n3", "r1n[1-3]"},
		{"two numbers, both differ", "r1n1 r1n2 r2n1 r2n2", "r[1-2]n[1-2]"},
		{"no numbers", "mail db", "db,mail"},
		{"a name and its numbered sisters", "web web1 web2", "web,web[1-2]"},
		{"digits that fit no number", "h99999999999999999999 h99999999999999999998", "h99999999999999999998,h99999999999999999999"},
	} {
		if got := Fold(strings.Fields(c.hosts)); got != c.want {
			t.Errorf("%s: Fold(%s) = %q, want %q", c.name, c.hosts, got, c.want)
		}
	}
}

// What Fold writes, Expand reads back as the same names.
func FuzzFold(f *testing.F) {
	f.Add("web01 web02 web10 db1")
	f.Add("r1n1 r1n2 r2n1 r2n2 r3n1")
	f.Add("1 01 001 2 02")
	f.Add("n08 n99 n100 n098 n099 n100 n101")
	f.Add("h999999999999999999 h1000000000000000000 h1000000000000000001")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "[],\x00") {
			return // in no host's name
		}
		names := strings.Fields(text)
		folded := Fold(names)
		got, err := Unfold(folded)
		if err != nil {
			t.Fatalf("Fold(%q) = %q: %v", names, folded, err)
		}
		slices.Sort(names)
		names = slices.Compact(names)
		slices.Sort(got)
		if !slices.Equal(got, names) {
			t.Errorf("Fold(%q) = %q, which is %q", names, folded, got)
		}
	})
}

func TestExpand(t *testing.T) {
	const want = "want numbers and ranges, as 01-10,17 or 0-20/5, or letters, as a:f"
	for _, row := range []struct{ name, text, want, err string }{
		{"no set", "web", "web", ""},
		{"padded with zeros", "web[08:11]", "web08 web09 web10 web11", ""},
		{"not padded", "web[8-11]", "web8 web9 web10 web11", ""},
		{"as pdsh has it", "web[1-3,7]", "web1 web2 web3 web7", ""},
		{"as Fold writes it", "web[01-03,07].example.net", "web01.example.net web02.example.net web03.example.net web07.example.net", ""},
		{"each item with zeros of its own", "n[01,1-2]", "n01 n1 n2", ""},
		{"with a step, as clush has it", "w[0-10/5]", "w0 w5 w10", ""},
		{"with a step, as Ansible has it", "w[0:9:3]", "w0 w3 w6 w9", ""},
		{"one digit", "web[7]", "web7", ""},
		{"of one", "web[7:7]", "web7", ""},
		{"from zero", "w[0:2]", "w0 w1 w2", ""},
		{"letters", "db-[a:c]", "db-a db-b db-c", ""},
		{"letters with a dash", "db-[a-c]", "db-a db-b db-c", ""},
		{"capitals", "[X:Z]", "X Y Z", ""},
		{"two sets", "r[1-2]n[a:b]x", "r1nax r1nbx r2nax r2nbx", ""},
		{"digits that could be one number or several", "web[12]", "", "[12] could be the number 12 or any of its digits: write the number without brackets, or [1,2]"},
		{"ends of different width, padded", "[01:100]", "", "[01:100]: both ends must have as many digits if one is padded with zeros"},
		{"the last end padded", "[1-03]", "", "[1-03]: both ends must have as many digits if one is padded with zeros"},
		{"backwards", "[2:1]", "", "[2:1]: it ends before it begins"},
		{"letters backwards", "[b:a]", "", "[b:a]: it ends before it begins"},
		{"letters and capitals", "[a:Z]", "", "[a:Z]: both ends must be small letters, or both capitals"},
		{"a letter and a digit", "[a:1]", "", "[a:1]: " + want},
		{"one end", "[1:]", "", "[1:]: " + want},
		{"one end of several", "[1,2-]", "", `[1,2-]: "2-": ` + want},
		{"two dashes", "[1-2-3]", "", "[1-2-3]: " + want},
		{"a comma too many", "[1,]", "", `[1,]: "": ` + want},
		{"a step of nothing", "[1-9/]", "", "[1-9/]: want a step of 1 to 65536 behind a range, as 0-20/5"},
		{"a step of zero", "[1-9/0]", "", "[1-9/0]: want a step of 1 to 65536 behind a range, as 0-20/5"},
		{"a step without a range", "[1/2]", "", "[1/2]: want a step of 1 to 65536 behind a range, as 0-20/5"},
		{"empty", "a[]", "", "[]: " + want},
		{"a sign", "[-1:1]", "", "[-1:1]: " + want},
		{"not closed", "a[1:2", "", `"a[1:2": a [ without a ]`},
		{"not opened", "a1:2]", "", `"a1:2]": a ] without a [`},
		{"closed twice", "a[1:2]]", "", `"a[1:2]]": a ] without a [`},
		{"a set in a set", "[[1:2]:3]", "", "[[1:2]: " + want},
		{"too long", "[1-65537]", "", "[1-65537]: it makes more than 65536 names"},
		{"too long in parts", "[1-65535,1-2]", "", "[1-65535,1-2]: it makes more than 65536 names"},
		{"too long together", "[1:300][1:300]", "", "[1:300]: it makes more than 65536 names"},
		{"more than a number holds", "[1:99999999999999999999]", "", "[1:99999999999999999999]: it has a number of more than 18 digits"},
	} {
		t.Run(row.name, func(t *testing.T) {
			list, err := Expand(row.text)
			check(t, list, err, row.want, row.err)
		})
	}
}

func TestExpandGlob(t *testing.T) {
	for _, row := range []struct{ name, text, want, err string }{
		{"a set", "web[8-11]", "web8 web9 web10 web11", ""},
		{"a set and a glob", "web[1-2]*", "web1* web2*", ""},
		{"a class of letters", "db[abc]", "db[abc]", ""},
		{"a class of letters and digits", "db[a-f0-9]?", "db[a-f0-9]?", ""},
		{"letters as Ansible has them", "db[a:b]", "dba dbb", ""},
		{"a class with an exception", "web[!3]", "web[!3]", ""},
		{"escaped", `a\[1-2]`, `a\[1-2]`, ""},
		{"not closed", "a[1-2", "a[1-2", ""},
		{"an exception of several digits", "web[!10-12]", "", "[!10-12] matches one character, and has a number of several digits: want a set, as [8-11], and to leave hosts out a part of its own, as web*:!web[8-11]"},
		{"digits that could be one number or several", "web[12]", "", "[12] could be the number 12 or any of its digits: write the number without brackets, or [1,2]"},
		{"too long", "[1-999999]*", "", "[1-999999]: it makes more than 65536 names"},
	} {
		t.Run(row.name, func(t *testing.T) {
			list, err := ExpandGlob(row.text)
			check(t, list, err, row.want, row.err)
		})
	}
}

func check(t *testing.T, list []string, err error, want, wantErr string) {
	t.Helper()
	if got := strings.Join(list, " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err == nil && wantErr != "" || err != nil && err.Error() != wantErr {
		t.Errorf("\n got error %v\nwant       %s", err, wantErr)
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"web[01:03]", "[a:c][1-2]", "[1-65536]", "[1:", "]", "[]", "[09-10,7/2]", "[9:08]", "[1:2]]", "[!a]", `\[1-2]`, "[1-9/2,a:c]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, expand := range []func(string) ([]string, error){Expand, ExpandGlob} {
			list, err := expand(s)
			if (err != nil) != (list == nil) || len(list) > Max {
				t.Errorf("%q: %d names, %v", s, len(list), err)
			}
		}
	})
}
