package inventory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	maxName     = 63  // of guests, and of all else that has a name
	maxHostName = 253 // hosts are often called by their DNS names
)

// checkName allows [a-zA-Z0-9][a-zA-Z0-9_.-]*: names become files on a host
// and words of patterns.
func checkName(s string, longest int) error {
	if s == "" || len(s) > longest || !isWord(s) || strings.IndexByte("_.-", s[0]) >= 0 {
		return fmt.Errorf("%q is no name: want a letter or digit, then up to %d letters, digits, _ . -", s, longest-1)
	}
	return nil
}

// isWord says whether s is made of what a name may be made of.
func isWord(s string) bool {
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}

// checkLabel allows values that a selector can name.
func checkLabel(name, value string) error {
	if value == "" || len(value) > maxName || !isWord(value) {
		return fmt.Errorf("%s has the value %q: want 1 to %d letters, digits, _ . -", name, value, maxName)
	}
	return nil
}

// checkDevice allows what dev_valid_name of the kernel (net/core/dev.c) does.
func checkDevice(s string) error {
	if s == "" || len(s) > 15 || s == "." || s == ".." || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == '/' || c == ':' || c > '~' }) {
		return errors.New("want a network device of at most 15 letters, as eth0")
	}
	return nil
}

// oneOf reads a word of a short list.
func oneOf(what, word string, known []string) *Error {
	if slices.Contains(known, word) {
		return nil
	}
	hint := didYouMean(word, known)
	return &Error{Msg: fmt.Sprintf("%s: there is no %q, want %s", what, word, orList(known)), Hint: hint}
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
