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

// sized is the writer of a table for a terminal.
type sized struct {
	io.Writer
	columns int
}

// columnsOf returns how many columns a table may have; 0 is no limit.
func columnsOf(w io.Writer) int {
	if s, ok := w.(sized); ok {
		return s.columns
	}
	return 0
}

// Table prints rows below the names of their columns, as kubectl does: no lines,
// nothing wrapped. On a terminal that is too narrow, the longest texts are cut off,
// except in the first column, which names what the row is about. A column whose name
// begins with ">" is right-aligned. For tables of thousands of rows use [Stat].
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

// headings returns the names of columns without their marks, and their alignment.
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

// fewest is the minimum width of a column that is cut off. Columns no wider than
// short, such as addresses, are cut last.
const fewest, short = 8, 16

// narrow cuts texts off, so that rows of these cells are no wider than width. It
// leaves numbers and the first column alone.
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
