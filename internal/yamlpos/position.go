package yamlpos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/nearest"
)

// Position is a place in a file. Line and Column count from 1; both are 0 for the file
// as a whole.
type Position struct {
	File         string
	Line, Column int
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Error is one mistake in a file or a pattern. Pos is zero for a pattern that comes
// from no file.
type Error struct {
	Pos  Position
	Msg  string
	Hint string // what to do about it: `did you mean "address"?`
	// Excerpt is the line at fault with a caret below the column, for people; "" if
	// there is none.
	Excerpt string
	// Offset is 1 plus the offset of the mistake in the text at Pos; 0 if unknown.
	Offset int
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Pos != (Position{}) {
		b.WriteString(e.Pos.String())
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Errors holds all mistakes in some files, in the order of the files. It is never
// empty.
type Errors struct {
	All []*Error
}

// Error returns the errors, one per line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.All))
	for i, one := range e.All {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each *Error.
func (e *Errors) Unwrap() []error {
	list := make([]error, len(e.All))
	for i, one := range e.All {
		list[i] = one
	}
	return list
}

// Report collects errors while files are read.
type Report struct {
	Files    []string // in the order in which they were given
	list     []*Error
	warnings []*Error
	reported map[Position]bool
	guesses  int
	sources  map[string]*source
}

// Add adds an error.
func (r *Report) Add(pos Position, hint, format string, args ...any) {
	r.list = append(r.list, &Error{Pos: pos, Msg: bounded(fmt.Sprintf(format, args...)), Hint: bounded(hint)})
}

// Warn adds a warning. Warnings do not make a file invalid.
func (r *Report) Warn(pos Position, hint, format string, args ...any) {
	r.warnings = append(r.warnings, &Error{Pos: pos, Msg: bounded(fmt.Sprintf(format, args...)), Hint: bounded(hint)})
}

// Warnings returns the warnings in file order.
func (r *Report) Warnings() []*Error { return r.sorted(r.warnings) }

// longestMessage is longer than any message that shows a short value.
const longestMessage = 300

// bounded shortens a message that shows a long value: a file that was named by mistake
// may contain anything, and should not fill the screen.
func bounded(msg string) string {
	for i := range msg {
		if i >= longestMessage {
			return msg[:i] + "…"
		}
	}
	return msg
}

// Once adds an error unless it was added before: a text that is wrong for a thousand
// hosts is one mistake.
func (r *Report) Once(pos Position, hint, format string, args ...any) {
	if r.reported[pos] {
		return
	}
	if r.reported == nil {
		r.reported = map[Position]bool{}
	}
	r.reported[pos] = true
	r.Add(pos, hint, format, args...)
}

// Failed adds an error that has no position yet, once.
func (r *Report) Failed(pos Position, e *Error) { r.Once(pos, e.Hint, "%s", e.Msg) }

// FailedIn adds an error about a text, once, at its offset in the text.
func (r *Report) FailedIn(t Text, e *Error) {
	pos := e.Pos
	if pos == (Position{}) {
		pos = r.Within(t, e.Offset-1)
	}
	r.Failed(pos, e)
}

// MaxGuesses limits how many times the nearest word is searched for: each search
// compares a word with every host, and nobody needs the hundredth suggestion.
const MaxGuesses = 100

// DidYouMean returns the hint for an unknown word, or "".
func (r *Report) DidYouMean(word string, known []string) string {
	if r.guesses++; r.guesses > MaxGuesses {
		return ""
	}
	return DidYouMean(word, known)
}

// Err returns all reported errors in file order, without duplicates: a mapping with
// several aliases is read several times.
func (r *Report) Err() error {
	if len(r.list) == 0 {
		return nil
	}
	r.list = r.sorted(r.list)
	for _, e := range r.list[:min(len(r.list), maxExcerpts)] {
		if file := r.sources[e.Pos.File]; file != nil {
			e.Excerpt = file.excerpt(e.Pos)
		}
	}
	return &Errors{All: r.list}
}

// sorted returns a list in file order, without duplicates.
func (r *Report) sorted(list []*Error) []*Error {
	order := make(map[string]int, len(r.Files))
	for i, file := range r.Files {
		order[file] = i
	}
	slices.SortStableFunc(list, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(order[a.Pos.File], order[b.Pos.File]),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column),
			cmp.Compare(a.Msg, b.Msg))
	})
	return slices.CompactFunc(list, func(a, b *Error) bool { return *a == *b })
}

// DidYouMean returns the hint for a word that is not among the known ones, or "".
func DidYouMean(word string, known []string) string {
	if near := nearest.Word(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}
