package yamlpos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// syntax reports an error of the YAML parser. The parser gives positions only as text,
// if at all, often that of the surrounding block, and its messages require knowledge of
// YAML's grammar.
func (d *Decoder) syntax(data []byte, err error) {
	msg, line := splitSyntax(err)
	if at := badByte(data, msg); at >= 0 {
		pos := Position{File: d.File, Line: 1 + bytes.Count(data[:at], []byte("\n"))}
		pos.Column = at - bytes.LastIndexByte(data[:at], '\n')
		d.Add(pos, "", "not readable as YAML: %s", msg)
		return
	}
	if i := firstMatch(data, iniSection); i > 0 {
		d.Add(Position{File: d.File, Line: i, Column: 1}, fmt.Sprintf("%s is YAML, as in %s", d.Doc.Noun, d.Doc.Page),
			"this looks like an INI file, as Ansible's inventories")
		return
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	line = failingLine(lines, msg, line)
	c := explainSyntax(lines, line, msg)
	d.Add(Position{File: d.File, Line: c.line, Column: c.column}, c.hint, "%s", c.msg)
}

// splitSyntax splits "yaml: line 3: …" into message and line.
func splitSyntax(err error) (msg string, line int) {
	msg, line = strings.TrimPrefix(err.Error(), "yaml: "), 1
	rest, found := strings.CutPrefix(msg, "line ")
	num, what, ok := strings.Cut(rest, ": ")
	if n, err := strconv.Atoi(num); found && ok && err == nil {
		return what, max(n, 1)
	}
	return msg, line
}

// badByte returns the offset of the first byte that is not text, or of a bad anchor, or
// -1.
func badByte(data []byte, msg string) int {
	if name, ok := strings.CutPrefix(msg, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		return bytes.Index(data, []byte("*"+name))
	}
	if !strings.Contains(msg, "UTF-8") && msg != "control characters are not allowed" {
		return -1
	}
	return bytes.IndexFunc(data, func(c rune) bool {
		return c == utf8.RuneError || unicode.IsControl(c) && c != '\n' && c != '\r' && c != '\t'
	})
}

// failingLine returns the first line at which parsing the text up to it fails like the
// whole text. The parser names the line where the block begins: the mistake is there or
// later.
func failingLine(lines [][]byte, msg string, from int) int {
	from = min(max(from-1, 1), len(lines)) // its scanner counts from 1, its parser from 0
	n := sort.Search(len(lines)-from, func(i int) bool {
		got, err := Document(bytes.Join(lines[:from+i], nil))
		if got != nil || err == nil {
			return false
		}
		what, _ := splitSyntax(err)
		return what == msg
	})
	return from + n
}

// Document returns the only document of a file. If the file is empty, the error is
// io.EOF.
func Document(data []byte) (doc *yaml.Node, err error) {
	// yaml.v3 panics with "internal error" on some malformed comments instead
	// of returning an error.
	defer func() {
		if p := recover(); p != nil {
			doc, err = nil, fmt.Errorf("%v", p)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var first, next yaml.Node
	if err := dec.Decode(&first); err != nil {
		return nil, err
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		return &next, errSecondDocument
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return &first, nil
}

// IsSecondDocument reports whether Document failed because the file has a second
// document.
func IsSecondDocument(err error) bool { return errors.Is(err, errSecondDocument) }

var errSecondDocument = errors.New("a second document begins here")

// complaint is a syntax error in plain words.
type complaint struct {
	line, column int
	msg, hint    string
}

var (
	iniSection = regexp.MustCompile(`^\[[A-Za-z0-9_.:-]+\]\s*$`)
	noSpace    = regexp.MustCompile(`^\s*(?:- )?([A-Za-z_]+):[^\s:/]`)
	// NoSpaceValue matches a key without a space behind its colon.
	NoSpaceValue = regexp.MustCompile(`^([A-Za-z_]+):(\S+)$`)
	badStart     = regexp.MustCompile("(?:^|[:,\\[{-]) *([@`%*])")
	badEscape    = regexp.MustCompile(`\\[^0abtnvfre "/\\N_LPxuU\t]`)
	afterQuote   = regexp.MustCompile(`"[^"]*" +([^\s,}\]#:"][^,}\]]*)`)
	noComma      = regexp.MustCompile(`[{,].*[^,{\[:\s]\s+([A-Za-z_]+): `)
	noColon      = regexp.MustCompile(`^\s*([A-Za-z_]+)(?: +([^:#]+))?$`)
	colonStart   = regexp.MustCompile(`[:,\[{-]\s+(::?[^\s,}\]]*)`)
)

// explainSyntax looks for common mistakes in the line at fault.
func explainSyntax(lines [][]byte, number int, msg string) complaint {
	text := func(i int) string {
		if i < 1 || i > len(lines) {
			return ""
		}
		return strings.TrimRight(string(lines[i-1]), "\r\n")
	}
	line := text(number)
	indent := len(line) - len(strings.TrimLeft(line, " \t"))
	c := complaint{line: number, column: indent + 1, msg: "not readable as YAML: " + msg}
	if tab := strings.IndexByte(line[:indent], '\t'); tab >= 0 {
		c.column, c.msg = tab+1, "a tab: YAML indents with spaces alone"
		return c
	}
	switch {
	case strings.HasPrefix(msg, "found character that cannot start"), msg == "did not find expected alphabetic or numeric character":
		if at := badStart.FindStringSubmatchIndex(line); at != nil {
			c.column, c.msg = 1+utf8.RuneCountInString(line[:at[2]]), fmt.Sprintf("a text cannot begin with %s", line[at[2]:at[3]])
			c.hint = "put it in quotes"
		}
	case strings.HasPrefix(msg, "mapping values are not allowed"):
		above := number - 1
		for above > 0 && strings.TrimSpace(text(above)) == "" {
			above--
		}
		up := text(above)
		switch m := noSpace.FindStringSubmatch(up); {
		case above > 0 && noColon.MatchString(up):
			word := noColon.FindStringSubmatch(up)
			c = complaint{above, indentation(up) + 1, "no colon behind " + word[1], strings.TrimSpace(fmt.Sprintf("write %s: %s", word[1], word[2]))}
		case m != nil:
			c = complaint{above, indentation(up) + 1, "no space behind the colon of " + m[1], fmt.Sprintf("write %s: …", m[1])}
		case strings.Count(line, ": ") > 1:
			c.column = 1 + utf8.RuneCountInString(line[:strings.LastIndex(line, ": ")])
			c.hint = "put a text with a colon and a space in it in quotes"
		case above > 0 && indent > indentation(text(above)):
			c.msg, c.hint = "this line is indented below a value, which can have nothing below it", "indent it as the line above"
		default:
			c.hint = "put a text with a colon and a space in it in quotes"
		}
	case msg == "did not find expected key" && fitsNone(lines[:number-1], indent):
		c.msg, c.hint = "the indentation of this line fits none of the lines above", "indent it as its neighbours"
	case colonStart.MatchString(line):
		at := colonStart.FindStringSubmatchIndex(line)
		c.column, c.msg = at[2]+1, fmt.Sprintf("%s: a text that begins with a colon must be in quotes", Short(line[at[2]:at[3]]))
		c.hint = fmt.Sprintf("write %q", Short(line[at[2]:at[3]]))
	case strings.HasPrefix(msg, "did not find expected ','") && strings.Count(text(number-1), `"`)%2 == 1:
		up := text(number - 1)
		c = complaint{number - 1, 1 + utf8.RuneCountInString(up[:strings.LastIndexByte(up, '"')]), "this quote is not closed", ""}
	default:
		c.explain(line, msg)
	}
	return c
}

// explain looks for mistakes with quotes and brackets within the line.
func (c *complaint) explain(line, msg string) {
	at := func(re *regexp.Regexp) bool {
		m := re.FindStringSubmatchIndex(line)
		if m != nil {
			c.column = 1 + utf8.RuneCountInString(line[:m[len(m)-2]])
		}
		return m != nil
	}
	switch {
	case msg == "found unknown escape character" && at(badEscape):
		c.msg, c.hint = `a backslash in "…" begins an escape, and this is none`, `write \\ for \, or put the text in '…'`
	case msg == "did not find expected key" && surplus(line) > 0:
		c.column, c.msg = surplus(line), "this bracket was not opened"
	case msg == "did not find expected key" && at(afterQuote):
		c.msg, c.hint = "nothing can stand behind the text in quotes", "put all of it in quotes"
	case strings.HasPrefix(msg, "did not find expected ','") && at(noComma):
		c.msg = "a comma is missing before this key"
	case strings.HasPrefix(msg, "did not find expected ','"):
		c.hint = "is a { or a [ not closed, or a text with a colon or a comma not in quotes?"
	case msg == "found unexpected end of stream":
		if open := strings.LastIndexAny(line, `"'`); open >= 0 {
			c.column = 1 + utf8.RuneCountInString(line[:open])
		}
		c.hint = "is a quote not closed?"
	}
}

// surplus returns the column of a closing bracket without an opening one, or 0.
func surplus(line string) int {
	open := 0
	for i, char := range []rune(line) {
		switch char {
		case '{', '[':
			open++
		case '}', ']':
			if open--; open < 0 {
				return i + 1
			}
		}
	}
	return 0
}

func indentation(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// fitsNone reports whether a line that ends a block is indented like none of the
// blocks above it.
func fitsNone(above [][]byte, indent int) bool {
	last, fits := 0, false
	for _, line := range above {
		if text := strings.TrimSpace(string(line)); text != "" && text[0] != '#' {
			last = indentation(string(line))
			fits = fits || last == indent
		}
	}
	return indent < last && !fits
}

// firstMatch returns the number of the first line that re matches, or 0.
func firstMatch(data []byte, re *regexp.Regexp) int {
	for i, line := range bytes.Split(data, []byte("\n")) {
		if re.Match(line) {
			return i + 1
		}
	}
	return 0
}

// longestShown limits how much of a file an error shows: a file named by mistake may
// hold secrets.
const longestShown = 60

// Short returns the beginning of the first line of s.
func Short(s string) string {
	line, _, more := strings.Cut(s, "\n")
	for i := range line {
		if i >= longestShown {
			line, more = line[:i], true
			break
		}
	}
	if more {
		line += "…"
	}
	return line
}

// HasKey reports whether a node is a mapping with a key.
func HasKey(n *yaml.Node, name string) bool {
	if n.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return true
		}
	}
	return false
}
