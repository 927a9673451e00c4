package view

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// ImageDiff prints what differs between two images: a summary, the packages and the files,
// up to limit of each; 0: all. What a new or a removed directory contains is in one row.
func ImageDiff(w io.Writer, d report.ImageDiff, limit int) error {
	if err := imageDiffSummary(w, d); err != nil {
		return err
	}
	var rows [][]string
	for _, p := range d.Packages {
		rows = append(rows, []string{string(p.Change), p.Name, p.From, p.To})
	}
	if err := limited(w, []string{"CHANGE", "PACKAGE", "FROM", "TO"}, rows, limit); err != nil {
		return err
	}
	return limited(w, []string{"CHANGE", "PATH", "WHAT", "SIZE"}, fileRows(d.Files), limit)
}

func imageDiffSummary(w io.Writer, d report.ImageDiff) error {
	if d.From.ID == d.To.ID {
		_, err := fmt.Fprintf(w, "%s and %s are the same image\n", comparedName(d.From), comparedName(d.To))
		return err
	}
	arch := d.To.Arch
	if d.From.Arch != arch {
		arch = d.From.Arch + " → " + arch
	}
	counts := map[report.Change]int{}
	for _, p := range d.Packages {
		counts[p.Change]++
	}
	text := fmt.Sprintf("%s → %s, %s\n", comparedName(d.From), comparedName(d.To), Clean(arch))
	if d.PackagesFrom > 0 || d.PackagesTo > 0 {
		text += fmt.Sprintf("packages: %s; %d → %d\n", countChanges(counts), d.PackagesFrom, d.PackagesTo)
	}
	for _, problem := range d.Problems {
		text += Clean(problem) + "\n"
	}
	files := countChanges(map[report.Change]int{report.Added: d.FilesAdded, report.Removed: d.FilesRemoved, report.Changed: d.FilesChanged})
	text += fmt.Sprintf("files: %s, %d only with another time; %s → %s, new contents %s\n", files, d.TimesOnly,
		Bytes(uint64(max(0, d.From.Bytes))), Bytes(uint64(max(0, d.To.Bytes))), Bytes(uint64(max(0, d.BytesNew))))
	_, err := io.WriteString(w, text)
	return err
}

// countChanges returns "12 changed, 3 added".
func countChanges(counts map[report.Change]int) string {
	var parts []string
	for _, change := range []report.Change{report.Upgraded, report.Downgraded, report.Changed, report.Added, report.Removed} {
		if n := counts[change]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, change))
		}
	}
	if parts == nil {
		return "none differ"
	}
	return strings.Join(parts, ", ")
}

// comparedName returns "bookworm@2 (649f38f2f537)".
func comparedName(i report.ComparedImage) string {
	name := i.Name
	if i.Version > 0 {
		name += imageVersion(i.ID, i.Version)
	}
	return Clean(name + " (" + shortDigest(i.ID) + ")")
}

// limited prints up to limit rows below an empty line, and how many there are besides.
func limited(w io.Writer, columns []string, rows [][]string, limit int) error {
	if len(rows) == 0 {
		return nil
	}
	more := ""
	if limit > 0 && len(rows) > limit {
		more = fmt.Sprintf("… and %d more; --rows 0 shows all\n", len(rows)-limit)
		rows = rows[:limit]
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	if err := Table(w, columns, rows); err != nil {
		return err
	}
	_, err := io.WriteString(w, more)
	return err
}

func fileRows(files []report.FileDiff) (rows [][]string) {
	for i := 0; i < len(files); {
		f, n := files[i], 1
		name, what, size := f.Path, fileChange(f), sizeChange(f)
		if alone := f.To == nil || f.From == nil; alone && isDirectory(f) {
			var bytes int64
			for i+n < len(files) && files[i+n].Change == f.Change && strings.HasPrefix(files[i+n].Path, f.Path+"/") {
				bytes += sideOf(files[i+n]).Size
				n++
			}
			name, what, size = name+"/", fmt.Sprintf("directory, %d below it", n-1), Bytes(uint64(max(0, bytes)))
		}
		rows = append(rows, []string{string(f.Change), name, what, size})
		i += n
	}
	return rows
}

// sideOf returns the description of a file, the newer one if there are two.
func sideOf(f report.FileDiff) *report.FileInfo {
	if f.To != nil {
		return f.To
	}
	return f.From
}

func isDirectory(f report.FileDiff) bool { return sideOf(f).Type == "directory" }

// fileChange describes a file that was added or removed, or what of it has changed.
func fileChange(f report.FileDiff) string {
	var parts []string
	if f.From == nil || f.To == nil {
		is := sideOf(f)
		switch {
		case is.SameAs != "":
			parts = append(parts, "another name of "+is.SameAs)
		case is.Target != "":
			parts = append(parts, "link to "+is.Target)
		case is.Type != "file":
			parts = append(parts, is.Type)
		}
		if len(is.Mode) > 4 && is.Type == "file" { // setuid, setgid
			parts = append(parts, "mode "+is.Mode)
		}
		return strings.Join(parts, ", ")
	}
	for _, what := range f.What {
		was, is := f.From, f.To
		switch what {
		case "type":
			what += " " + was.Type + " → " + is.Type
		case "mode":
			what += " " + was.Mode + " → " + is.Mode
		case "owner":
			what += fmt.Sprintf(" %d:%d → %d:%d", was.Owner, was.Group, is.Owner, is.Group)
		case "target":
			what += " " + was.Target + " → " + is.Target
		}
		parts = append(parts, what)
	}
	return strings.Join(parts, ", ")
}

func sizeChange(f report.FileDiff) string {
	size := func(i *report.FileInfo) string {
		if i == nil || i.Type != "file" {
			return ""
		}
		return Bytes(uint64(max(0, i.Size)))
	}
	was, is := size(f.From), size(f.To)
	if was == "" || is == "" || !slices.Contains(f.What, "content") {
		return cmp.Or(is, was)
	}
	return was + " → " + is
}
