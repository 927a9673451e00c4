package history

import (
	"bytes"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// hidden stands for a secret.
const hidden = "•••"

// shortest is the length in bytes of the shortest secret that is replaced. Shorter ones
// occur by chance too often.
const shortest = 6

// secrets replaces secrets in texts.
type secrets struct {
	list     []string // the longest first
	replacer *strings.Replacer
	escaped  *strings.Replacer // within JSON
}

// newSecrets returns secrets for values. Long lines of values with several lines, such
// as keys, are secrets by themselves.
func newSecrets(values []string) *secrets {
	s := &secrets{}
	seen := map[string]bool{}
	for _, value := range values {
		value = strings.TrimSpace(value)
		all := []string{value}
		if strings.Contains(value, "\n") {
			for l := range strings.Lines(value) {
				if l = strings.TrimSpace(l); len(l) >= 2*shortest && !strings.HasPrefix(l, "-----") {
					all = append(all, l)
				}
			}
		}
		for _, one := range all { // errors quote what they are about
			if q := strconv.Quote(one); q[1:len(q)-1] != one {
				all = append(all, q[1:len(q)-1])
			}
		}
		for _, one := range all {
			if len(one) >= shortest && !seen[one] {
				seen[one] = true
				s.list = append(s.list, one)
			}
		}
	}
	slices.SortStableFunc(s.list, func(a, b string) int { return len(b) - len(a) })
	var pairs, escaped []string
	for _, one := range s.list {
		b := encode(one)
		pairs, escaped = append(pairs, one, hidden), append(escaped, string(b[1:len(b)-1]), hidden)
	}
	s.replacer, s.escaped = strings.NewReplacer(pairs...), strings.NewReplacer(escaped...)
	return s
}

// text returns a text without secrets.
func (s *secrets) text(text string) string { return s.replacer.Replace(text) }

// names are the fields whose values are names or words of this program. They are not
// changed, which would make a journal unreadable.
var names = []string{"run", "time", "when", "kind", "host", "name", "state", "status", "class", "outcome", "verb", "hosts"}

// json returns a JSON value without secrets in its texts.
func (s *secrets) json(b []byte) []byte {
	if text := string(b); len(s.list) == 0 || s.escaped.Replace(text) == text {
		return b
	}
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return b // it was just encoded
	}
	return encode(s.value(v))
}

func (s *secrets) value(v any) any {
	switch v := v.(type) {
	case string:
		return s.text(v)
	case []any:
		for i := range v {
			v[i] = s.value(v[i])
		}
	case map[string]any:
		for key := range v {
			if !slices.Contains(names, key) {
				v[key] = s.value(v[key])
			}
		}
	}
	return v
}

// encode returns a value as one line of JSON.
func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // no type here has what JSON lacks
		return nil
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

var (
	secretKey  = regexp.MustCompile(`(?i)(password|passwd|passphrase|secret|token|credential|api[_-]?key|private[_-]?key|(^|[_.-])(pass|pwd|auth))([_.-]|s?$|[0-9]+$)`)
	assignment = regexp.MustCompile(`^(-{0,2}[A-Za-z_][\w.-]*?)([=:])(.+)$`)
	address    = regexp.MustCompile(`\b[a-z][a-z0-9+.-]*://[^\s/@]+@`)
	header     = regexp.MustCompile(`(?i)\b(authorization:\s*(?:basic|bearer|token)?\s*|bearer\s+)\S+`)
)

// args returns a command line without secrets: those of the inventory, values of flags
// and variables that are named like passwords, and passwords in addresses. It does not
// recognize other forms, such as "mysql -phunter2".
func (s *secrets) args(args []string) (list []string, redacted bool) {
	next := false // the value of the last one
	for _, arg := range args {
		was := arg
		switch m := assignment.FindStringSubmatch(arg); {
		case next:
			arg = hidden
		case m != nil && secretKey.MatchString(m[1]) && !fileFlag(m[1]):
			arg = m[1] + m[2] + hidden
		}
		next = !next && strings.HasPrefix(was, "--") && !strings.Contains(was, "=") && secretKey.MatchString(was) && !fileFlag(was)
		arg = address.ReplaceAllStringFunc(arg, withoutPassword)
		arg = header.ReplaceAllString(arg, "${1}"+hidden)
		arg = s.text(arg)
		redacted = redacted || arg != was
		list = append(list, arg)
	}
	return list, redacted
}

// fileFlag reports whether a flag with the name of a secret takes a file, or nothing.
func fileFlag(flag string) bool {
	flag = strings.TrimLeft(flag, "-")
	return flag == "private-key" || strings.HasSuffix(flag, "-file") || strings.HasPrefix(flag, "ask-")
}

// withoutPassword returns the beginning of an address, up to its @, without the
// password.
func withoutPassword(text string) string {
	u, err := url.Parse(text + "x")
	if err != nil || u.User == nil {
		return text
	}
	if _, set := u.User.Password(); !set {
		return text
	}
	return u.Scheme + "://" + u.User.Username() + ":" + hidden + "@"
}
