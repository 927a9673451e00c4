package view

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// StaleTable prints the guests that use what newer versions have replaced.
func StaleTable(w io.Writer, records []report.StaleRecord) error {
	var rows [][]string
	for _, r := range records {
		if r.Error == "" && !r.Stale() && r.Problem == "" {
			continue
		}
		var processes, packages []string
		for _, p := range r.Processes {
			processes = append(processes, p.Name)
		}
		for _, p := range r.Packages {
			packages = append(packages, p.Name)
		}
		rows = append(rows, []string{r.Host, r.Name, staleImage(r), some(r.Restart, processes), some(r.Behind, packages), r.Problem})
	}
	if rows == nil {
		return nil
	}
	return Table(w, []string{"HOST", "GUEST", "IMAGE", "PROCESSES", "PACKAGES", "NOT KNOWN"}, rows)
}

// staleImage describes how a guest's image is behind.
func staleImage(r report.StaleRecord) string {
	var parts []string
	if r.Wanted != "" {
		parts = append(parts, imageVersion(r.Image, r.Version)+" → "+imageVersion(r.Wanted, r.Newer))
	}
	if r.Runs != "" {
		parts = append(parts, "restart it")
	}
	return strings.Join(parts, ", ")
}

// imageVersion names an image by its version or the start of its digest.
func imageVersion(id string, version int) string {
	if version > 0 {
		return "@" + strconv.Itoa(version)
	}
	return shortDigest(id)
}

// some returns a number and the first few different names.
func some(n int, names []string) string {
	const most = 3
	if n == 0 {
		return ""
	}
	var few []string
	seen := map[string]bool{}
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			few = append(few, name)
		}
	}
	text := strings.Join(few[:min(most, len(few))], ", ")
	if len(few) > most {
		text += ", …"
	}
	return fmt.Sprintf("%d: %s", n, text)
}
