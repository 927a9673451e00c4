package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// ImageSpreadTable prints one row for each name of an image: how many hosts have its current
// version, which have another one, and which lack it.
func ImageSpreadTable(w io.Writer, records []report.ImageSpread) error {
	var rows [][]string
	for _, r := range records {
		name, id := r.Name, ""
		if r.Version > 0 {
			name += imageVersion("", r.Version)
		}
		if len(r.IDs) == 1 {
			id = shortDigest(r.IDs[0])
		} else if len(r.IDs) > 1 {
			id = fmt.Sprintf("%d of them", len(r.IDs))
		}
		var others []string
		for _, o := range r.Others {
			others = append(others, fewHosts(o.Hosts)+": "+imageVersion(o.ID, o.Version))
		}
		rows = append(rows, []string{
			name, id, fmt.Sprintf("%d/%d", len(r.Have), r.Hosts), fmt.Sprintf("%d/%d", r.Current, r.Guests),
			strings.Join(others, "; "), fewHosts(r.Lack), fewHosts(r.Unknown),
		})
	}
	if rows == nil {
		return nil
	}
	return Table(w, []string{"IMAGE", "ID", ">HOSTS", ">GUESTS", "OTHER VERSIONS", "LACK IT", "NOT KNOWN"}, rows)
}

// fewHosts returns the names of hosts, folded; of many, some and how many there are.
func fewHosts(names []string) string {
	const longest, some = 40, 3
	if folded := nodeset.Fold(names); len(folded) <= longest || len(names) <= some {
		return folded
	}
	return fmt.Sprintf("%s, … (%d hosts)", strings.Join(names[:some], ", "), len(names))
}
