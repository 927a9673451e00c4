package view

import (
	"bufio"
	"fmt"
	"io"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// CheckTable prints what hosts lack, hosts that lack the same together, and how
// many of the hosts that were asked lack nothing that every guest needs.
func CheckTable(o Output, w io.Writer, records []report.CheckRecord, asked int) error {
	out := bufio.NewWriter(w)
	var order []api.CheckRow // different ones; they are comparable
	lacking := map[api.CheckRow][]string{}
	able := map[string]bool{} // hosts
	for _, record := range records {
		r := api.CheckRow{
			Name: record.Name, For: record.For, Required: record.Required, Verdict: record.Verdict,
			Detail: record.Detail, Lost: record.Lost, Cure: record.Cure,
		}
		known, seen := able[record.Host]
		able[record.Host] = (known || !seen) && (r.Verdict == api.Yes || !r.Required)
		if r.Verdict == api.Yes || r.Name == "" {
			continue
		}
		if lacking[r] == nil {
			order = append(order, r)
		}
		lacking[r] = append(lacking[r], record.Host)
	}
	for _, r := range order {
		mark := o.paint(yellow, "no")
		switch {
		case r.Verdict == api.Unknown:
			mark = o.paint(yellow, "?")
		case r.Required:
			mark = o.paint(red, "MISSING")
		}
		fmt.Fprintf(out, "%s: %s %s: %s\n", Clean(nodeset.Fold(lacking[r])), mark, Clean(r.Name), Clean(r.Detail))
		for _, line := range [][2]string{{"for", r.For}, {"lost", r.Lost}, {"cure", r.Cure}} {
			if line[1] != "" {
				fmt.Fprintf(out, "    %s: %s\n", line[0], Clean(line[1]))
			}
		}
	}
	n := 0
	for _, is := range able {
		if is {
			n++
		}
	}
	fmt.Fprintf(out, "%d of %s can run guests", n, Count(asked, "host"))
	if silent := asked - len(able); silent > 0 {
		fmt.Fprintf(out, ", %d did not answer", silent)
	}
	fmt.Fprintln(out)
	return out.Flush()
}
