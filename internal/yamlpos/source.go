package yamlpos

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// source is the text of a file, for errors.
type source struct {
	data  []byte
	lines [][]byte // without their newlines; nil until they are asked for
	// hidden are the lines that no error shows, by their numbers.
	hidden map[int]bool
}

// Bounds on what errors show of files.
const (
	maxExcerpts  = 40 // errors with an excerpt; nobody reads more
	excerptWidth = 100
)

// Keep stores the text of a file for excerpts in errors.
func (r *Report) Keep(file string, data []byte) {
	if r.sources == nil {
		r.sources = map[string]*source{}
	}
	r.sources[file] = &source{data: data}
}

// Hide excludes a line, which holds a secret, from all errors.
func (r *Report) Hide(pos Position) {
	if file := r.sources[pos.File]; file != nil {
		if file.hidden == nil {
			file.hidden = map[int]bool{}
		}
		file.hidden[pos.Line] = true
	}
}

// line returns a line, which is counted from 1, or nil.
func (s *source) line(n int) []byte {
	if s.lines == nil {
		s.lines = bytes.Split(s.data, []byte("\n"))
	}
	if n < 1 || n > len(s.lines) {
		return nil
	}
	return bytes.TrimSuffix(s.lines[n-1], []byte("\r"))
}

// Within returns the position of what is at offset in a text.
func (r *Report) Within(t Text, offset int) Position {
	if file := r.sources[t.Pos.File]; file != nil {
		return file.within(t, offset)
	}
	return t.Pos
}

// within returns the position of an offset in t. The text may be written differently in
// YAML, so within searches for the words from the offset to the end of the variable.
func (s *source) within(t Text, offset int) Position {
	if offset < 0 || offset >= len(t.Value) {
		return t.Pos
	}
	words := t.Value[offset:]
	if end := strings.IndexAny(words, "}\n"); end >= 0 {
		words = words[:end]
	}
	words = Short(words)
	before := strings.Count(t.Value[:offset], words)
	pos, skip := t.Pos, utf8Offset(s.line(t.Pos.Line), t.Pos.Column)
	for end := pos.Line + strings.Count(t.Value, "\n") + 1; pos.Line <= end; pos.Line++ {
		line := s.line(pos.Line)
		for from := min(skip, len(line)); ; before-- {
			at := bytes.Index(line[from:], []byte(words))
			if at < 0 {
				break
			}
			if from += at; before == 0 {
				pos.Column = 1 + utf8.RuneCount(line[:from])
				return pos
			}
			from += len(words)
		}
		skip = 0
	}
	return t.Pos
}

// utf8Offset returns the offset of a column, which counts characters from 1.
func utf8Offset(line []byte, column int) int {
	at := 0
	for ; column > 1 && at < len(line); column-- {
		_, size := utf8.DecodeRune(line[at:])
		at += size
	}
	return at
}

// secret matches a line that may hold a password and must not be shown.
var secret = regexp.MustCompile(`(?i)(pass|passwd|password|secret|token)["']?\s*[:=]`)

// excerpt returns the line of a position with a caret below its column. It shows only
// the part of a long line around the column.
func (s *source) excerpt(pos Position) string {
	if secret.Match(s.line(pos.Line)) {
		return ""
	}
	line := []rune(string(s.line(pos.Line)))
	at := pos.Column - 1
	if len(line) == 0 || at < 0 || at > len(line) || s.hidden[pos.Line] {
		return ""
	}
	from, before, after := 0, "", ""
	if len(line) > excerptWidth {
		from = max(0, min(at-excerptWidth/2, len(line)-excerptWidth))
		if from > 0 {
			before = "…"
		}
		if from+excerptWidth < len(line) {
			after = "…"
		}
		line = line[from:min(len(line), from+excerptWidth)]
	}
	for i, c := range line {
		switch {
		case c == '\t':
			line[i] = ' '
		case !unicode.IsPrint(c): // it could move the cursor of a terminal
			line[i] = '.'
		}
	}
	number := fmt.Sprintf("%5d", pos.Line)
	caret := strings.Repeat(" ", len([]rune(before))+at-from) + "^"
	return fmt.Sprintf("%s | %s%s%s\n%*s | %s", number, before, string(line), after, len(number), "", caret)
}
