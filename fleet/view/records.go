package view

import (
	"io"
	"slices"
)

// Records are what a command prints, as it comes from many places. In ndjson
// each goes out at once; the other formats have one beginning and one end, and
// keep the order of the places. It is used by one goroutine at a time.
type Records[R any] struct {
	out    io.Writer
	format Format
	places [][]R
}

// NewRecords makes room for the records of n places.
func NewRecords[R any](out io.Writer, f Format, places int) *Records[R] {
	return &Records[R]{out: out, format: f, places: make([][]R, places)}
}

// Put gives the records of a place.
func (r *Records[R]) Put(place int, records ...R) error {
	r.places[place] = append(r.places[place], records...)
	if r.format != AsNDJSON {
		return nil
	}
	return Write(r.out, AsNDJSON, records, nil)
}

// Close writes what has not gone out yet, all records in the order of the places.
// The table is the caller's.
func (r *Records[R]) Close(table func(io.Writer, []R) error) error {
	if r.format == AsNDJSON {
		return nil
	}
	all := slices.Concat(r.places...)
	return Write(r.out, r.format, all, func(w io.Writer) error { return table(w, all) })
}
