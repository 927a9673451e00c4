package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Position is a place in an inventory file. Line and Column count from 1; they
// are 0 where a file as a whole is meant.
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

// Error is one thing that is wrong with an inventory or a pattern. Pos is zero
// for a pattern that came from no file.
type Error struct {
	Pos  Position
	Msg  string
	Hint string // what to do about it: `did you mean "address"?`
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

// Errors is everything that is wrong with an inventory, in the order of the
// files. It is never empty.
type Errors struct {
	All []*Error
}

// Error is one error a line.
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

// report collects errors while files are read.
type report struct {
	files   []string // in the order given
	list    []*Error
	told    map[Position]bool
	guesses int
}

func (r *report) add(pos Position, hint, format string, args ...any) {
	r.list = append(r.list, &Error{Pos: pos, Msg: bounded(fmt.Sprintf(format, args...)), Hint: bounded(hint)})
}

// longestMessage is more than any message of ours that shows one short value.
const longestMessage = 300

// bounded cuts a message that shows a long value: a file that was named by
// mistake may hold anything, and should not be printed for it.
func bounded(msg string) string {
	for i := range msg {
		if i >= longestMessage {
			return msg[:i] + "…"
		}
	}
	return msg
}

// once is add for values that are looked at again for every host: what is
// wrong with the text on a thousand hosts is one mistake in one place.
func (r *report) once(pos Position, hint, format string, args ...any) {
	if r.told[pos] {
		return
	}
	if r.told == nil {
		r.told = map[Position]bool{}
	}
	r.told[pos] = true
	r.add(pos, hint, format, args...)
}

// failed is once for an error that knows everything but its place.
func (r *report) failed(pos Position, e *Error) { r.once(pos, e.Hint, "%s", e.Msg) }

// maxGuesses bounds the search for nearest words: it compares a word with every
// host, and the hundredth typo teaches nobody anything new.
const maxGuesses = 100

// didYouMean is the hint for an unknown word, or "".
func (r *report) didYouMean(word string, known []string) string {
	if r.guesses++; r.guesses > maxGuesses {
		return ""
	}
	return didYouMean(word, known)
}

// err is all that was reported, in file order and each thing once: a mapping
// that several aliases name is read, and found wrong, several times.
func (r *report) err() error {
	if len(r.list) == 0 {
		return nil
	}
	order := make(map[string]int, len(r.files))
	for i, file := range r.files {
		order[file] = i
	}
	slices.SortStableFunc(r.list, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(order[a.Pos.File], order[b.Pos.File]),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column),
			cmp.Compare(a.Msg, b.Msg))
	})
	r.list = slices.CompactFunc(r.list, func(a, b *Error) bool { return *a == *b })
	return &Errors{All: r.list}
}
