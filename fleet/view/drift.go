package view

import (
	"bufio"
	"cmp"
	"fmt"
	"io"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
)

// Drift prints the differences between hosts and the inventory, one per row.
func Drift(o Output, f Format, run report.Run) error {
	records := report.DriftRecords(run)
	return Write(o, f, records, func(w io.Writer) error {
		var rows [][]string
		asWanted, unknown := 0, 0
		for _, r := range records {
			switch {
			case r.What != "":
				rows = append(rows, []string{r.Host, r.Guest, r.What, cmp.Or(r.Have, "none"), r.Want})
			case r.Status == outcome.OK:
				asWanted++
			default:
				unknown++
			}
		}
		if len(rows) > 0 {
			if err := Table(w, []string{"HOST", "GUEST", "WHAT", "HAS", "SHOULD HAVE"}, rows); err != nil {
				return err
			}
		}
		line := Count(asWanted, "host")
		if asWanted == 1 {
			line += " is as it should be"
		} else {
			line += " are as they should be"
		}
		if unknown > 0 {
			line += fmt.Sprintf("; nothing is known of %s", Count(unknown, "host"))
		}
		_, err := fmt.Fprintln(w, line)
		return err
	})
}

// Stale prints the differences between plans and the saved ones.
func Stale(o Output, hosts []report.StalePlan) error {
	out := bufio.NewWriter(o)
	for _, h := range hosts {
		fmt.Fprintln(out, o.paint(bold, Clean(h.Host)))
		for _, side := range []struct {
			which string
			steps []report.Step
		}{{"not any more", h.Gone}, {"new", h.More}} {
			for _, s := range side.steps {
				_, text := StepText(s)
				fmt.Fprintf(out, "  %s: %s: %s\n", side.which, text, Clean(s.Why))
			}
		}
		if len(h.Gone)+len(h.More) == 0 {
			fmt.Fprintln(out, "  the same steps in another order, or other guests are refused")
		}
	}
	return out.Flush()
}
