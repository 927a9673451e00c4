package transport

import (
	"fmt"
	"strings"
)

// Quote returns s as one word of a POSIX shell. A login shell may be of another
// kind: use [Script] for its command lines.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Script returns a command that runs a script with sh, whatever the login shell is,
// with one argument as its $0. The script must not contain a single quote, newline,
// "!" or two backslashes in a row. The argument may contain anything but NUL; the
// script decodes it by $(printf "%b." "$0") without the dot.
func Script(script, arg string) string {
	return "exec sh -c '" + script + "' '" + encodeArg(arg) + "'"
}

// encodeArg keeps the characters that no shell interprets between single quotes, and
// writes the others as printf's %b reads them: between single quotes fish
// interprets \\ and \', csh "!" and the end of the line.
func encodeArg(s string) string {
	const plain = " _./:=,@+-"
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\0%03o`, c)
		}
	}
	return b.String()
}
