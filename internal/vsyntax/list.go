package vsyntax

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/nearest"
)

// Word is a word of a list. Lines and columns count from 1, columns in bytes.
type Word struct {
	Text         string
	Line, Column int
}

// Error is a mistake in a list. Its text begins with the place: "3:5: unknown …".
type Error struct {
	Line, Column int
	Why          string
}

func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Why) }

// Errorf returns an error about the word.
func (w Word) Errorf(format string, args ...any) *Error {
	return &Error{w.Line, w.Column, fmt.Sprintf(format, args...)}
}

// Words splits a list.
func Words(text string) (words []Word) {
	line := 0
	for row := range strings.Lines(text) {
		line++
		if strings.HasPrefix(strings.TrimLeft(row, " \t"), "#") {
			continue
		}
		start := -1
		for i := 0; i <= len(row); i++ {
			switch between := i == len(row) || strings.IndexByte(", \t\r\n", row[i]) >= 0; {
			case between && start >= 0:
				words = append(words, Word{row[start:i], line, start + 1})
				start = -1
			case !between && start < 0:
				start = i
			}
		}
	}
	return words
}

// Table names the flags of one kind.
type Table struct {
	What     string   // in errors: "capability"
	Prefixes []string // that a name may have, in lower case: "cap_"
	Flags    []Flag
}

// Flag is one flag, or several under one name.
type Flag struct {
	Names []string // in lower case, the usual one first
	Mask  uint64
}

// Item is a word of a list of flags.
type Item struct {
	Word
	Mask uint64
	Off  bool // taken away
}

// all returns every flag of the table.
func (t Table) all() (mask uint64) {
	for _, f := range t.Flags {
		mask |= f.Mask
	}
	return mask
}

// Parse reads a list of flags. It returns the items before the first mistake, too.
func (t Table) Parse(text string) (items []Item, err error) {
	for _, w := range Words(text) {
		item, err := t.item(w)
		if err != nil {
			return items, err
		}
		items = append(items, item)
	}
	return items, nil
}

func (t Table) item(w Word) (Item, error) {
	item := Item{Word: w}
	name := w.Text
	for name != "" && (name[0] == '~' || name[0] == '!') {
		item.Off, name = !item.Off, name[1:]
	}
	name = strings.ToLower(name)
	if number, ok := strings.CutPrefix(name, "^"); ok {
		n, err := strconv.ParseUint(number, 10, 8)
		if err != nil || n > 63 || t.all()&(1<<n) == 0 {
			return item, w.Errorf("%q: no %s has this number", w.Text, t.What)
		}
		item.Mask = 1 << n
		return item, nil
	}
	if name == "all" || name == "any" {
		item.Mask = t.all()
		return item, nil
	}
	if name != "" && name[0] >= '0' && name[0] <= '9' {
		n, err := Number(name)
		if err != nil {
			return item, w.Errorf("%v", err)
		}
		if more := n &^ t.all(); more != 0 {
			return item, w.Errorf("%q: there is no %s %#x", w.Text, t.What, more)
		}
		item.Mask = n
		return item, nil
	}
	var known []string
	for _, f := range t.Flags {
		for _, n := range f.Names {
			if n == name || n == t.bare(name) {
				item.Mask = f.Mask
				return item, nil
			}
			known = append(known, n)
		}
	}
	if near := nearest.Word(t.bare(name), known); near != "" {
		return item, w.Errorf("unknown %s %q; did you mean %s?", t.What, w.Text, near)
	}
	return item, w.Errorf("unknown %s %q", t.What, w.Text)
}

// bare returns a name without a prefix.
func (t Table) bare(name string) string {
	for _, prefix := range t.Prefixes {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest
		}
	}
	return name
}

// Names returns the usual names of the flags in a mask.
func (t Table) Names(mask uint64) (names []string) {
	for _, f := range t.Flags {
		if f.Mask&mask == f.Mask {
			names = append(names, f.Names[0])
		}
	}
	return names
}

// Apply returns a mask after the items, of which later ones override earlier ones.
func Apply(mask uint64, items []Item) uint64 {
	for _, item := range items {
		if item.Off {
			mask &^= item.Mask
		} else {
			mask |= item.Mask
		}
	}
	return mask
}
