package view

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/olekukonko/tablewriter/tw"
)

// Rows is a table on a terminal whose rows come one by one, perhaps over minutes: the
// widths of its columns are set before the texts are known.
type Rows struct {
	out    Output
	align  []tw.Align
	widths []int
	names  []string // not written yet
}

// NewRows begins a table with columns as in [Table], each at least as wide as given.
func NewRows(o Output, columns []string, widths []int) *Rows {
	names, align := headings(columns)
	r := &Rows{out: o, names: names, align: align}
	blanks := make([]string, len(names))
	for i, n := range widths {
		blanks[i] = strings.Repeat(" ", n)
	}
	cells := [][]string{names, blanks}
	narrow(cells, align, o.Width())
	for i := range names {
		r.widths = append(r.widths, max(utf8.RuneCountInString(cells[0][i]), utf8.RuneCountInString(cells[1][i])))
	}
	return r
}

// Add writes a row. Texts that are too long are cut off.
func (r *Rows) Add(cells []string) error {
	if r.names != nil {
		if err := r.write(r.names); err != nil {
			return err
		}
		r.names = nil
	}
	return r.write(cells)
}

func (r *Rows) write(cells []string) error {
	parts := make([]string, len(cells))
	for i, cell := range cells {
		if r.align[i] == tw.AlignRight {
			parts[i] = fmt.Sprintf("%*s", r.widths[i], Clean(cell))
		} else {
			parts[i] = fmt.Sprintf("%-*s", r.widths[i], truncate(Clean(cell), r.widths[i]))
		}
	}
	_, err := io.WriteString(r.out, truncate(strings.TrimRight(strings.Join(parts, "  "), " "), r.out.Width())+"\n")
	return err
}
