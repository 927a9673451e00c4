// Package printable makes text that somebody else wrote fit for a terminal: the
// name of a process, the output of a guest, a message of a host. Control
// characters could move the cursor and rewrite what others said.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line makes control characters visible: "\x1b[2J" becomes `\x1b[2J`. Also
// those that Unicode has for writing from right to left, which can make a line
// read as another. Newlines and tabs become blanks.
func Line(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Lines is Line for a text of several lines.
func Lines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = Line(line)
	}
	return strings.Join(lines, "\n")
}

func unprintable(r rune) bool {
	return !unicode.IsGraphic(r) || r == utf8.RuneError
}
