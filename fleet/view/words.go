package view

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CommandLine returns the line that a shell reads as these words. It is safe for a
// terminal: words with control characters are written as $'…'.
func CommandLine(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = shellWord(word)
	}
	return strings.Join(quoted, " ")
}

func shellWord(word string) string {
	switch {
	case strings.ContainsFunc(word, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }):
		return escapedWord(word)
	case word == "", word[0] == '=', strings.ContainsFunc(word, special):
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

// special reports whether a shell may read a printable character as more than itself.
func special(r rune) bool {
	return r < utf8.RuneSelf && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_./:=,@+-%", r)
}

func escapedWord(word string) string {
	var b strings.Builder
	for i, r := range word {
		n := utf8.RuneLen(r)
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(word[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\%03o`, word[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\'' || r == '\\':
			b.WriteString(`\` + string(r))
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			for _, c := range []byte(word[i : i+n]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		}
	}
	return "$'" + b.String() + "'"
}
