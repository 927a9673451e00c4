package inventory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

const (
	maxName     = 63  // of guests, groups, images, labels and variables
	maxHostName = 253 // hosts are often called by their DNS names
)

// checkName refuses names other than [a-zA-Z0-9][a-zA-Z0-9_.-]*: they become file
// names on hosts and words of patterns.
func checkName(s string, longest int) error {
	if s == "" || len(s) > longest || !isWord(s) || strings.IndexByte("_.-", s[0]) >= 0 {
		return fmt.Errorf("%q is no name: want a letter or digit, then up to %d letters, digits, _ . -", s, longest-1)
	}
	return nil
}

// IsHostName reports whether a host of an inventory can have that name.
func IsHostName(s string) bool {
	return checkName(s, maxHostName) == nil && s != "all" && s != "ungrouped"
}

// IsName reports whether a group, a label or a variable can have that name.
func IsName(s string) bool { return checkName(s, maxName) == nil }

// isWord reports whether s has only characters that names may have.
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

// checkLabel refuses values that a selector cannot name.
func checkLabel(name, value string) error {
	if value == "" || len(value) > maxName || !isWord(value) {
		return fmt.Errorf("%s has the value %q: want 1 to %d letters, digits, _ . -", name, value, maxName)
	}
	return nil
}

// oneOf refuses a word that is not among the known ones.
func oneOf[T ~string](what string, word T, known []T) *Error {
	if slices.Contains(known, word) {
		return nil
	}
	words := make([]string, len(known))
	for i, k := range known {
		words[i] = string(k)
	}
	hint := yamlpos.DidYouMean(string(word), words)
	return &Error{Msg: fmt.Sprintf("%s: there is no %q, want %s", what, word, orList(known)), Hint: hint}
}

func orList[T ~string](words []T) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}
