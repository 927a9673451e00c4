package transport

import (
	"fmt"
	"strings"
)

// Quote makes one word for a POSIX shell out of s. Login shells may be others:
// what they are given goes through [Script].
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Script is a command that runs a script by sh, with one argument as its $0,
// whatever the login shell is. The script must hold no single quote, newline,
// "!" or two backslashes; the argument may hold anything but NUL, and is decoded
// in the script by $(printf "%b." "$0") without the dot.
func Script(script, arg string) string {
	return "exec sh -c '" + script + "' '" + encode(arg) + "'"
}

// encode leaves what no shell touches between single quotes, and writes the rest
// as printf's %b reads it: fish knows \\ and \' between them, csh a "!" and the
// end of the line.
func encode(s string) string {
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
