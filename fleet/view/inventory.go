package view

import (
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// HostTable prints hosts of the inventory.
func HostTable(w io.Writer, records []report.HostRecord) error {
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{r.Host, r.Address, strings.Join(r.Groups, ","), pairs(r.Labels), strings.Join(r.Guests, ",")})
	}
	return Table(w, []string{"HOST", "ADDRESS", "GROUPS", "LABELS", "GUESTS"}, rows)
}

func pairs(m map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+m[k])
	}
	return strings.Join(list, ",")
}

// VarTable prints variables of hosts.
func VarTable(w io.Writer, records []report.VarRecord) error {
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{r.Host, r.Name, r.Value.String(), r.From})
	}
	return Table(w, []string{"HOST", "VARIABLE", "VALUE", "FROM"}, rows)
}

// WantedTable prints guests as the inventory wants them.
func WantedTable(w io.Writer, records []report.WantedRecord) error {
	if len(records) == 0 {
		return nil
	}
	var rows [][]string
	for _, r := range records {
		context := "auto"
		if r.Context != 0 {
			context = strconv.Itoa(r.Context)
		}
		ends := strings.Join(slices.Concat(r.Addresses, r.Ports, r.Forwards), " ")
		rows = append(rows, []string{r.Host, r.Guest, context, r.State, r.Image, string(r.Mode), ends})
	}
	return Table(w, []string{"HOST", "GUEST", ">CTX", "STATE", "IMAGE", "NETWORK", "ADDRESSES AND PORTS"}, rows)
}
