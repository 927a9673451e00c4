package view

import (
	"io"
	"slices"
)

// Records prints the records of a command as they come from many places. In ndjson each
// is printed at once; in the other formats all are printed by Close, in the order of
// the places. It must be used by one goroutine at a time.
type Records[R any] struct {
	out    io.Writer
	format Format
	places [][]R
}

// NewRecords returns Records for a number of places.
func NewRecords[R any](out io.Writer, f Format, places int) *Records[R] {
	return &Records[R]{out: out, format: f, places: make([][]R, places)}
}

// Put adds records of a place.
func (r *Records[R]) Put(place int, records ...R) error {
	r.places[place] = append(r.places[place], records...)
	if r.format != AsNDJSON {
		return nil
	}
	return Write(r.out, AsNDJSON, records, nil)
}

// Close prints what was not printed yet; table prints records as a table.
func (r *Records[R]) Close(table func(io.Writer, []R) error) error {
	if r.format == AsNDJSON {
		return nil
	}
	all := slices.Concat(r.places...)
	return Write(r.out, r.format, all, func(w io.Writer) error { return table(w, all) })
}
