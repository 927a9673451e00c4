package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// sized is where a table for a terminal goes.
type sized struct {
	io.Writer
	columns int
}

// columnsOf is how wide a table may be; 0 is as wide as it is.
func columnsOf(w io.Writer) int {
	if s, ok := w.(sized); ok {
		return s.columns
	}
	return 0
}

// Table prints rows below the names of their columns, in columns as kubectl's:
// no lines, nothing wrapped. Only on a terminal that is too narrow are texts cut
// off, the longest first; the first column, which says what the row is about, is
// not. A column whose name begins with ">" is right-aligned. For tables of
// thousands of rows there is [Stat].
func Table(w io.Writer, columns []string, rows [][]string) error {
	names, align := headings(columns)
	cell := tw.CellConfig{
		Formatting: tw.CellFormatting{AutoFormat: tw.Off, AutoWrap: tw.WrapNone},
		Alignment:  tw.CellAlignment{Global: tw.AlignLeft, PerColumn: align},
		Padding:    tw.CellPadding{Global: tw.Padding{Right: "  ", Overwrite: true}},
	}
	var text strings.Builder
	t := tablewriter.NewTable(&text,
		tablewriter.WithConfig(tablewriter.Config{Header: cell, Row: cell}),
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Symbols:  tw.NewSymbols(tw.StyleNone),
			Settings: tw.Settings{Lines: tw.LinesNone, Separators: tw.SeparatorsNone},
		})),
		tablewriter.WithTrimSpace(tw.Off),
	)
	clean := make([][]string, 0, len(rows))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = Clean(c)
		}
		clean = append(clean, cells)
	}
	if width := columnsOf(w); width > 0 {
		narrow(append([][]string{names}, clean...), align, width)
	}
	t.Header(names)
	for _, cells := range clean {
		if err := t.Append(cells); err != nil {
			return fmt.Errorf("table: %w", err)
		}
	}
	if err := t.Render(); err != nil {
		return fmt.Errorf("table: %w", err)
	}
	for line := range strings.Lines(text.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// headings are the names of columns without their marks.
func headings(columns []string) (names []string, align []tw.Align) {
	for _, c := range columns {
		name, right := strings.CutPrefix(c, ">")
		names, align = append(names, name), append(align, tw.AlignLeft)
		if right {
			align[len(align)-1] = tw.AlignRight
		}
	}
	return names, align
}

// fewest characters of a column that is cut off; addresses and the like, which
// have no more than short, are cut last.
const fewest, short = 8, 16

// narrow cuts texts off, so that rows of these cells are no wider than width.
// Numbers stay, and so does the first column.
func narrow(rows [][]string, align []tw.Align, width int) {
	widths := make([]int, len(align))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	over := 2*(len(widths)-1) - width // two blanks between columns
	for _, n := range widths {
		over += n
	}
	whole := slices.Clone(widths)
	for _, spare := range []int{short, 0} {
		for ; over > 0; over-- {
			widest := -1
			for i := 1; i < len(widths); i++ {
				if align[i] == tw.AlignLeft && whole[i] > spare && widths[i] > fewest && (widest < 0 || widths[i] > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
	for _, row := range rows {
		for i := range row {
			row[i] = truncate(row[i], widths[i])
		}
	}
}
