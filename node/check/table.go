package check

import (
	"bufio"
	"fmt"
	"io"

	"github.com/vsfleet/vsfleet/node/api"
)

// Write prints the table of `vsnode check`: one line per feature, and below each
// missing one what is lost and what to do.
func Write(w io.Writer, c api.Check) error {
	out := bufio.NewWriter(w)
	width := 0
	for _, r := range c.Rows {
		width = max(width, len(r.Name))
	}
	for _, r := range c.Rows {
		fmt.Fprintf(out, "%-8s %-*s  %s", mark(r), width, r.Name, r.For)
		if r.Detail != "" {
			fmt.Fprintf(out, ": %s", r.Detail)
		}
		fmt.Fprintln(out)
		for _, line := range [][2]string{{"lost", r.Lost}, {"cure", r.Cure}} {
			if line[1] != "" {
				fmt.Fprintf(out, "%-8s %-*s  %s: %s\n", "", width, "", line[0], line[1])
			}
		}
	}
	return out.Flush()
}

func mark(r api.CheckRow) string {
	switch {
	case r.Verdict == api.Yes:
		return "ok"
	case r.Verdict == api.Unknown:
		return "?"
	case r.Required:
		return "MISSING"
	}
	return "no"
}
