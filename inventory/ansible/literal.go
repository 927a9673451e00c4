package ansible

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parseLiteral reads a literal of Python: None, True, numbers, texts, lists, tuples
// and dictionaries, as Ansible reads values of INI files. Sets, bytes and complex
// numbers are left as text.
func parseLiteral(s string) (any, bool) {
	p := &literalParser{rest: strings.TrimLeft(s, " \t")}
	v, ok := p.value(0)
	if ok && p.peek() == ',' { // "1, 2" is a tuple
		var list []any
		if list, ok = p.items(v, 0, 0); ok {
			v = list
		}
	}
	p.space()
	return v, ok && (p.rest == "" || p.rest[0] == '#')
}

type literalParser struct {
	rest string
}

func (p *literalParser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

// peek returns the next byte that is no space, or 0.
func (p *literalParser) peek() byte {
	if p.space(); p.rest == "" {
		return 0
	}
	return p.rest[0]
}

func (p *literalParser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

var (
	pyWord   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)
	pyNumber = regexp.MustCompile(`^(0[xX](_?[0-9a-fA-F])+|0[oO](_?[0-7])+|0[bB](_?[01])+|([0-9](_?[0-9])*)?\.?([0-9](_?[0-9])*)?([eE][-+]?[0-9](_?[0-9])*)?)`)
)

func (p *literalParser) value(depth int) (any, bool) {
	if depth > 50 {
		return nil, false
	}
	switch c := p.peek(); {
	case c == '[':
		return p.list('[', ']', depth)
	case c == '(':
		return p.tuple(depth)
	case c == '{':
		return p.dict(depth)
	case c == '\'' || c == '"':
		return p.texts()
	case c == '-' || c == '+':
		p.rest = p.rest[1:]
		if next := p.peek(); (next < '0' || next > '9') && next != '.' && next != '-' && next != '+' {
			return nil, false
		}
		v, ok := p.value(depth + 1)
		if c == '+' {
			return v, ok
		}
		switch n := v.(type) {
		case int64:
			return -n, ok
		case float64:
			return -n, ok
		}
		return nil, false
	case c >= '0' && c <= '9' || c == '.':
		return p.number()
	}
	word := pyWord.FindString(p.rest)
	rest := p.rest[len(word):]
	switch word {
	case "None", "True", "False":
		p.rest = rest
		return map[string]any{"None": nil, "True": true, "False": false}[word], true
	case "u", "U", "r", "R":
		if rest != "" && (rest[0] == '\'' || rest[0] == '"') {
			return p.texts()
		}
	}
	return nil, false
}

func (p *literalParser) number() (any, bool) {
	text := pyNumber.FindString(p.rest)
	after := p.rest[len(text):]
	if after != "" && (after[0] == '_' || after[0] == '.' || after[0] >= '0' && after[0] <= '9' || pyWord.MatchString(after)) {
		return nil, false
	}
	p.rest = after
	plain := strings.ReplaceAll(text, "_", "")
	if len(plain) > 1 && plain[0] == '0' && strings.Trim(plain, "0") != "" && strings.Trim(plain, "0123456789") == "" {
		return nil, false // Python 3 does not read 0644 as a number
	}
	if i, err := strconv.ParseInt(plain, 0, 64); err == nil {
		return i, true
	}
	if strings.Trim(plain, "0") == "" && plain != "" {
		return int64(0), true
	}
	if !strings.ContainsAny(plain, ".eE") || strings.HasPrefix(strings.ToLower(plain), "0x") {
		return nil, false
	}
	f, err := strconv.ParseFloat(plain, 64)
	return f, err == nil
}

// items reads the rest of a list behind its first value, up to the closing bracket,
// or to the end if that is 0.
func (p *literalParser) items(first any, end byte, depth int) ([]any, bool) {
	list := []any{first}
	for p.take(',') {
		if c := p.peek(); c == end || c == '#' && end == 0 {
			break
		}
		v, ok := p.value(depth + 1)
		if !ok {
			return nil, false
		}
		list = append(list, v)
	}
	return list, end == 0 || p.take(end)
}

func (p *literalParser) list(open, end byte, depth int) (any, bool) {
	p.take(open)
	if p.take(end) {
		return []any{}, true
	}
	first, ok := p.value(depth + 1)
	if !ok {
		return nil, false
	}
	return p.items(first, end, depth)
}

// tuple reads (), (1,), (1, 2) and the value in (1).
func (p *literalParser) tuple(depth int) (any, bool) {
	p.take('(')
	if p.take(')') {
		return []any{}, true
	}
	first, ok := p.value(depth + 1)
	if !ok || p.take(')') {
		return first, ok
	}
	return p.items(first, ')', depth)
}

func (p *literalParser) dict(depth int) (any, bool) {
	p.take('{')
	m := map[string]any{}
	for !p.take('}') {
		k, ok := p.value(depth + 1)
		if !ok || !p.take(':') {
			return nil, false
		}
		v, ok := p.value(depth + 1)
		if !ok {
			return nil, false
		}
		switch k.(type) {
		case []any, map[string]any, float64:
			return nil, false
		case nil:
			k = "null"
		}
		m[fmt.Sprint(k)] = v
		if !p.take(',') && p.peek() != '}' {
			return nil, false
		}
	}
	return m, true
}

// texts reads a text, or several one behind the other, which are one.
func (p *literalParser) texts() (any, bool) {
	var b strings.Builder
	for {
		raw := false
		c := p.peek()
		if len(p.rest) > 1 && strings.IndexByte("uUrR", c) >= 0 && (p.rest[1] == '\'' || p.rest[1] == '"') {
			raw = c == 'r' || c == 'R'
			p.rest = p.rest[1:]
			c = p.rest[0]
		}
		if c != '\'' && c != '"' {
			return b.String(), true
		}
		quote := string(c)
		if triple := strings.Repeat(quote, 3); strings.HasPrefix(p.rest, triple) {
			quote = triple
		}
		p.rest = p.rest[len(quote):]
		if !p.text(&b, quote, raw) {
			return nil, false
		}
	}
}

// text reads up to the closing quote.
func (p *literalParser) text(b *strings.Builder, quote string, raw bool) bool {
	for p.rest != "" {
		switch {
		case strings.HasPrefix(p.rest, quote):
			p.rest = p.rest[len(quote):]
			return true
		case p.rest[0] == '\\' && len(p.rest) > 1:
			if raw {
				b.WriteString(p.rest[:2])
				p.rest = p.rest[2:]
			} else if !p.escape(b) {
				return false
			}
		default:
			_, size := utf8.DecodeRuneInString(p.rest)
			b.WriteString(p.rest[:size])
			p.rest = p.rest[size:]
		}
	}
	return false
}

var pyEscapes = map[byte]string{'\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v", '\n': ""}

// escape reads a backslash and what belongs to it.
func (p *literalParser) escape(b *strings.Builder) bool {
	c := p.rest[1]
	if plain, ok := pyEscapes[c]; ok {
		b.WriteString(plain)
		p.rest = p.rest[2:]
		return true
	}
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
	switch {
	case digits > 0:
		if len(p.rest) < 2+digits {
			return false
		}
		n, err := strconv.ParseUint(p.rest[2:2+digits], 16, 32)
		if err != nil || n > utf8.MaxRune {
			return false
		}
		b.WriteRune(rune(n))
		p.rest = p.rest[2+digits:]
	case c >= '0' && c <= '7':
		end := 2
		for end < len(p.rest) && end < 4 && p.rest[end] >= '0' && p.rest[end] <= '7' {
			end++
		}
		n, _ := strconv.ParseUint(p.rest[1:end], 8, 32) // one to three octal digits
		b.WriteRune(rune(n))
		p.rest = p.rest[end:]
	case c == 'N':
		return false // by the character's name
	default:
		b.WriteString(p.rest[:2])
		p.rest = p.rest[2:]
	}
	return true
}
