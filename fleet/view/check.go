package view

import (
	"bufio"
	"fmt"
	"io"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/node/api"
)

// HostCheck is what one host answered.
type HostCheck struct {
	Host string
	api.Check
}

// CheckRecord is one feature of one host in machine formats.
type CheckRecord struct {
	Host     string      `json:"host"`
	Name     string      `json:"name"`
	For      string      `json:"for"`
	Required bool        `json:"required"`
	Verdict  api.Verdict `json:"verdict"`
	Detail   string      `json:"detail"`
	Lost     string      `json:"lost"`
	Cure     string      `json:"cure"`
	report.Result
}

// CheckRecords are the features of a host, or, without an answer, why there is
// none.
func CheckRecords(h HostCheck, result report.Result) []CheckRecord {
	if len(h.Rows) == 0 {
		return []CheckRecord{{Host: h.Host, Verdict: api.Unknown, Result: result}}
	}
	var records []CheckRecord
	for _, r := range h.Rows {
		records = append(records, CheckRecord{h.Host, r.Name, r.For, r.Required, r.Verdict, r.Detail, r.Lost, r.Cure, result})
	}
	return records
}

// CheckTable prints what hosts lack, hosts that lack the same together, and how
// many lack nothing that every guest needs.
func CheckTable(o Output, w io.Writer, hosts []HostCheck) error {
	out := bufio.NewWriter(w)
	var order []api.CheckRow // different ones; they are comparable
	lacking := map[api.CheckRow][]string{}
	able := 0
	for _, h := range hosts {
		missing := false
		for _, r := range h.Rows {
			if r.Verdict == api.Yes {
				continue
			}
			missing = missing || r.Required
			if lacking[r] == nil {
				order = append(order, r)
			}
			lacking[r] = append(lacking[r], h.Host)
		}
		if !missing {
			able++
		}
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
	fmt.Fprintf(out, "%d of %s can run guests\n", able, count(len(hosts), "host"))
	return out.Flush()
}
