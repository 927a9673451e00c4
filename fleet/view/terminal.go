package view

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/vsfleet/vsfleet/internal/printable"
)

// The rules of the terminal:
//
//   - Standard output has data only, in the format that was asked for. Progress,
//     recaps, warnings and errors go to standard error.
//   - Machine formats (json, yaml, ndjson, csv) never change with the terminal,
//     the locale or the time of day, and have no colour.
//   - Colour and redrawn lines are for terminals only. NO_COLOR, TERM=dumb and
//     --no-color turn colour off, CLICOLOR_FORCE turns it on. Nothing depends on
//     colour alone.
//   - The screen is never cleared and the cursor never leaves the last line.
//   - Equal lines of many hosts are one line: web[01-40].
//   - Text of hosts and guests is shown with its control characters made visible: a
//     name or an error must not move the operator's cursor, retitle the window or
//     hide a line.
//   - Nothing here asks a question.

// Output is a stream that people may read.
type Output struct {
	io.Writer
	Terminal bool // lines may be redrawn
	Colour   bool
	Width    func() int // columns of the terminal, asked anew as it may change
}

// Open returns the output on a standard stream. noColor is the flag of that name.
func Open(f *os.File, noColor bool) Output {
	fd := int(f.Fd())
	return judge(f, term.IsTerminal(fd), noColor, os.Getenv, func() int {
		width, _, err := term.GetSize(fd)
		if err != nil {
			return 80
		}
		return width
	})
}

func judge(w io.Writer, terminal, noColor bool, getenv func(string) string, width func() int) Output {
	dumb := getenv("TERM") == "dumb"
	forced := getenv("CLICOLOR_FORCE")
	colour := terminal && !dumb || forced != "" && forced != "0"
	if noColor || getenv("NO_COLOR") != "" {
		colour = false
	}
	return Output{Writer: w, Terminal: terminal && !dumb, Colour: colour, Width: width}
}

// Plain returns an output that is not a terminal.
func Plain(w io.Writer) Output { return Output{Writer: w} }

// ink is an ANSI colour.
type ink string

const (
	red    ink = "31"
	green  ink = "32"
	yellow ink = "33"
	faint  ink = "2"
	bold   ink = "1"
)

// paint colours a text if the output has colour.
func (o Output) paint(c ink, text string) string {
	if !o.Colour || c == "" || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// Clean makes control characters visible: see printable.Line.
func Clean(s string) string { return printable.Line(s) }
