package builder

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// long are util-vserver's long spellings of methods' arguments.
var long = map[string]byte{"--template": 't', "--source": 's', "--exclude-from": 'X'}

// refusedArguments are arguments of util-vserver's methods that are not taken.
var refusedArguments = map[string]string{
	"--pkgmgmt":     "packages are managed in the guest",
	"--nodevsanity": "device nodes of an archive are dead in a guest, whose /dev is always its own",
	"-X":            "no file is linked to that of another guest, so that none has to be excluded; -x PATH leaves a path out of the copy",
}

// options parses a method's arguments as getopt does: each of the letters takes a
// value, and "--" ends the options; rest is what follows.
func options(args []string, letters string) (values map[byte][]string, rest []string, err error) {
	values = make(map[byte][]string)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, value, inline := arg, "", false
		if before, after, ok := strings.Cut(arg, "="); ok && strings.HasPrefix(arg, "--") {
			name, value, inline = before, after, true
		}
		if letter, ok := long[name]; ok {
			name = "-" + string(letter)
		} else if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			name, value, inline = arg[:2], arg[2:], true
		}
		known := len(name) == 2 && name[0] == '-' && strings.IndexByte(letters, name[1]) >= 0
		switch why := refusedArguments[name]; {
		case arg == "--":
			return values, args[i+1:], nil
		case !known && why != "":
			return nil, nil, fmt.Errorf("argument %s: %s", arg, why)
		case !known:
			return nil, nil, fmt.Errorf("argument %q: want %s", arg, wanted(letters))
		case inline:
		case i+1 == len(args):
			return nil, nil, fmt.Errorf("argument %s needs a value", arg)
		default:
			i++
			value = args[i]
		}
		values[name[1]] = append(values[name[1]], value)
	}
	return values, nil, nil
}

func wanted(letters string) string {
	if letters == "" {
		return "none"
	}
	return "one of -" + strings.Join(strings.Split(letters, ""), ", -")
}

// arguments parses the arguments of a method that takes nothing behind "--".
func arguments(args []string, letters string) (map[byte][]string, error) {
	values, rest, err := options(args, letters)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("argument %q: nothing follows --", rest[0])
	}
	return values, err
}

// once returns the value of an argument that may be given once, or "".
func once(values map[byte][]string, letter byte) (string, error) {
	switch v := values[letter]; len(v) {
	case 0:
		return "", nil
	case 1:
		return v[0], nil
	default:
		return "", fmt.Errorf("argument -%c is given %d times", letter, len(v))
	}
}

// paths are absolute paths, or patterns of them, of what is left out or taken in.
type paths []string

func parsePaths(list []string) (paths, error) {
	for _, p := range list {
		if _, err := path.Match(p, ""); err != nil || !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
			return nil, fmt.Errorf("path %q: want an absolute path without . and .., or a pattern of one, as /var/cache/*", p)
		}
	}
	return slices.Clone(list), nil
}

// has reports whether a path below the root, as "var/cache", is one of them.
func (ps paths) has(name string) bool {
	return slices.ContainsFunc(ps, func(p string) bool {
		ok, err := path.Match(p, "/"+name)
		return ok && err == nil
	})
}

// openSource opens a directory of this host that is to be copied.
func openSource(name string) (*os.File, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, missingf("no %s on this host", name)
	}
	return f, err
}
