package sshconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// line is one directive of a file.
type line struct {
	keyword  string // lower case
	args     []string
	place    string // FILE:LINE
	included []line // of an Include: the lines of its files
}

// maxDepth bounds files that include files, as in OpenSSH (READCONF_MAX_DEPTH).
const maxDepth = 16

// maxFile bounds a file: a device or a log that was named by mistake has no end.
const maxFile = 4 << 20

// files is a configuration: its text as ssh reads it, and its lines.
type files struct {
	text  string // for ssh -F
	lines []line
	// dependent means that the answer may differ between any two hosts.
	dependent bool
	err       error // why the lines could not be read here; ssh may know better
}

// paths is where configuration is looked for.
type paths struct {
	home   string // $HOME
	system string // /etc/ssh/ssh_config
}

// read reads the files of a configuration: those of ssh for "", else one file.
func (p paths) read(name string) (*files, error) {
	c := &files{}
	if name != "" {
		text, err := readFile(p.tilde(name), false)
		if err != nil {
			return nil, fmt.Errorf("read ssh_config: %w", err)
		}
		c.text = text
		c.lines, c.err = p.parse(text, p.tilde(name), filepath.Join(p.home, ".ssh"), 0)
		c.dependent = c.err != nil || dependent(c.lines)
		return c, nil
	}
	user := filepath.Join(p.home, ".ssh", "config")
	text, err := readFile(user, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read ssh_config: %w", err)
	}
	if err == nil {
		c.text = text
		c.lines, c.err = p.parse(text, user, filepath.Join(p.home, ".ssh"), 0)
	}
	text, err = readFile(p.system, false)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read ssh_config: %w", err)
	default:
		c.text += "\nHost *\nInclude " + quote(p.system) + "\n"
		lines, err := p.parse(text, p.system, filepath.Dir(p.system), 0)
		if c.err == nil {
			c.err = err
		}
		c.lines = append(c.lines, line{keyword: "host", args: []string{"*"}})
		c.lines = append(c.lines, line{keyword: "include", included: lines})
	}
	c.dependent = c.err != nil || dependent(c.lines)
	return c, nil
}

// readFile reads a file of text. The user's own must be writable by nobody else, as
// others could run commands by it.
func readFile(name string, own bool) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	switch {
	case info.IsDir():
		return "", fmt.Errorf("%s is a directory", name)
	case own && (info.Mode()&0o022 != 0 || owner != 0 && owner != os.Getuid()):
		return "", fmt.Errorf("%s: others can write to it, and ssh does not use it either: chmod 600 %s", name, name)
	case info.Size() > maxFile:
		return "", fmt.Errorf("%s: it has %d bytes, which is no configuration", name, info.Size())
	}
	b := make([]byte, maxFile+1)
	n := 0
	for n < len(b) {
		m, err := f.Read(b[n:])
		if n += m; err != nil || m == 0 {
			break
		}
	}
	if n > maxFile {
		return "", fmt.Errorf("%s: it has no end", name)
	}
	return string(b[:n]), nil
}

// quote writes a path as an argument of Include, which is a pattern of files.
func quote(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if strings.IndexByte(`*?[\`, c) >= 0 {
			b.WriteString(`\\`)
		}
		b.WriteByte(c)
	}
	return `"` + b.String() + `"`
}

func (p paths) tilde(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		return filepath.Join(p.home, path[1:])
	}
	return path
}

// parse splits a file into its lines. Relative names of Include are below dir.
func (p paths) parse(text, file, dir string, depth int) ([]line, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("read ssh_config: %s: files include files more than %d deep", file, maxDepth)
	}
	var lines []line
	for i, s := range strings.Split(text, "\n") {
		l, err := parseLine(s)
		place := fmt.Sprintf("%s:%d", file, i+1)
		if err != nil {
			return nil, fmt.Errorf("read ssh_config: %s: %w", place, err)
		}
		if l.keyword == "" {
			continue
		}
		l.place = place
		if l.keyword == "include" {
			for _, arg := range l.args {
				more, err := p.include(arg, dir, depth)
				if err != nil {
					return nil, err
				}
				l.included = append(l.included, more...)
			}
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// include returns the lines of the files that a pattern names.
func (p paths) include(pattern, dir string, depth int) ([]line, error) {
	if pattern = p.tilde(pattern); !filepath.IsAbs(pattern) {
		pattern = filepath.Join(dir, pattern)
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("read ssh_config: Include %s: %w", pattern, err)
	}
	var lines []line
	for _, name := range names {
		text, err := readFile(name, false)
		if err != nil {
			return nil, fmt.Errorf("read ssh_config: %w", err)
		}
		more, err := p.parse(text, name, dir, depth+1)
		if err != nil {
			return nil, err
		}
		// A Host line of one file does not reach into the next.
		lines = append(lines, line{keyword: "include", included: more})
	}
	return lines, nil
}

// parseLine splits a line into its keyword and arguments; both are empty for a comment.
func parseLine(s string) (line, error) {
	s = strings.Trim(s, " \t\r\f")
	if s == "" || s[0] == '#' {
		return line{}, nil
	}
	end := strings.IndexAny(s, " \t=\"")
	if end <= 0 {
		if end == 0 {
			return line{}, fmt.Errorf("want a keyword, have %q", s)
		}
		return line{keyword: strings.ToLower(s)}, nil
	}
	l := line{keyword: strings.ToLower(s[:end])}
	s = strings.TrimLeft(s[end:], " \t")
	if rest, ok := strings.CutPrefix(s, "="); ok {
		s = strings.TrimLeft(rest, " \t")
	}
	switch l.keyword {
	case "proxycommand", "localcommand", "remotecommand", "knownhostscommand": // one argument, to the end of the line
		l.args = []string{s}
		return l, nil
	}
	var err error
	l.args, err = splitArgs(s)
	return l, err
}

// splitArgs splits words as OpenSSH does: quotes, a backslash before a quote, a backslash
// or a space, and comments.
func splitArgs(s string) ([]string, error) {
	var args []string
	for i := 0; i < len(s); {
		switch s[i] {
		case ' ', '\t':
			i++
			continue
		case '#':
			return args, nil
		}
		var word strings.Builder
		quote := byte(0)
		for ; i < len(s); i++ {
			c := s[i]
			switch {
			case c == '\\' && i+1 < len(s) && (strings.IndexByte(`'"\`, s[i+1]) >= 0 || quote == 0 && s[i+1] == ' '):
				i++
				word.WriteByte(s[i])
				continue
			case quote == 0 && (c == ' ' || c == '\t'):
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
				continue
			case quote != 0 && c == quote:
				quote = 0
				continue
			default:
				word.WriteByte(c)
				continue
			}
			break
		}
		if quote != 0 {
			return nil, fmt.Errorf("no closing %c", quote)
		}
		args = append(args, word.String())
	}
	return args, nil
}

// dependent reports whether the settings of a host can depend on more than the blocks
// that apply to it: then each host is asked for by itself.
func dependent(lines []line) bool {
	for _, l := range lines {
		switch l.keyword {
		case "include":
			for _, arg := range l.args {
				if strings.ContainsAny(arg, "%$") {
					return true
				}
			}
			if dependent(l.included) {
				return true
			}
		case "match":
			for _, arg := range l.args {
				word, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(arg, "!")), "=")
				if word == "exec" {
					return true
				}
			}
		case "canonicalizehostname":
			if len(l.args) > 0 && !strings.EqualFold(l.args[0], "no") {
				return true
			}
		case "proxycommand", "localcommand", "remotecommand", "identityfile", "certificatefile":
			// ssh -G prints them with their tokens.
		default:
			for _, arg := range l.args {
				if hasHostToken(arg) {
					return true
				}
			}
		}
	}
	return false
}

// hasHostToken reports whether a value holds a token that differs between hosts.
func hasHostToken(s string) bool {
	for i := 0; i+1 < len(s); i++ {
		if s[i] == '%' {
			if i++; strings.IndexByte("%diuLl", s[i]) < 0 {
				return true
			}
		}
	}
	return false
}
