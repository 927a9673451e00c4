package wire

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func FuzzArgs(f *testing.F) {
	f.Add("a b", `it's \' "$HOME" !x`, "\xff\n")
	f.Add("", "", "")
	safe := regexp.MustCompile(`^[A-Za-z0-9_-]*$`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for _, args := range [][]string{nil, {a}, {a, b, c}} {
			word, err := EncodeArgs(args)
			if err != nil {
				if !strings.Contains(a+b+c, "\x00") && len(a+b+c) < MaxArgs-3 {
					t.Fatal(err)
				}
				continue
			}
			got, err := DecodeArgs(word)
			if err != nil || !slices.Equal(got, args) || !safe.MatchString(word) {
				t.Fatalf("%q became %q by %q, error %v", args, got, word, err)
			}
		}
	})
}

func TestArgsThatCannotBe(t *testing.T) {
	for _, args := range [][]string{{"a\x00b"}, {strings.Repeat("x", MaxArgs)}} {
		if word, err := EncodeArgs(args); err == nil {
			t.Errorf("%d bytes became %d", len(args[0]), len(word))
		}
	}
	for _, word := range []string{"'", "YQ", "a b", "===="} {
		if args, err := DecodeArgs(word); err == nil {
			t.Errorf("%q became %q", word, args)
		}
	}
}
