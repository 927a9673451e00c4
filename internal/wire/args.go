package wire

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// MaxArgs is the greatest length in bytes of the arguments of one command: the
// kernel takes 128 KiB in one word (MAX_ARG_STRLEN), and they grow by a third on
// their way.
const MaxArgs = 90 << 10

// EncodeArgs writes the arguments of a command as one word of letters, digits,
// "-" and "_". Login shells differ in what they make of quotes: fish knows a
// backslash within them and tcsh a "!", and what a host's image or a user is
// called would end up as a command there.
func EncodeArgs(args []string) (string, error) {
	var all strings.Builder
	for _, arg := range args {
		if strings.ContainsRune(arg, 0) {
			return "", fmt.Errorf("argument %q: there is a NUL in it, which no command can be given", arg)
		}
		all.WriteString(arg)
		all.WriteByte(0)
	}
	if all.Len() > MaxArgs {
		return "", fmt.Errorf("the command and its arguments are %d KiB, and %d are possible: give it the rest on standard input", all.Len()>>10, MaxArgs>>10)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(all.String())), nil
}

// DecodeArgs reads what EncodeArgs wrote.
func DecodeArgs(word string) ([]string, error) {
	all, err := base64.RawURLEncoding.DecodeString(word)
	if err != nil {
		return nil, fmt.Errorf("read arguments: %w", err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	text, whole := strings.CutSuffix(string(all), "\x00")
	if !whole {
		return nil, errors.New("read arguments: the last one has no end")
	}
	return strings.Split(text, "\x00"), nil
}
