package imagediff

import (
	"cmp"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// compareFiles adds the files that differ to a record, in the order of a walk.
func compareFiles(d *report.ImageDiff, from, to manifest) {
	for path, is := range to {
		was, there := from[path]
		if !there {
			d.FilesAdded++
			d.Files = append(d.Files, report.FileDiff{Path: path, Change: report.Added, To: info(is)})
			continue
		}
		what := differences(was, is)
		switch {
		case what != nil:
			d.FilesChanged++
			d.Files = append(d.Files, report.FileDiff{Path: path, Change: report.Changed, What: what, From: info(was), To: info(is)})
		case was.mtime != is.mtime:
			d.TimesOnly++
		}
	}
	for path, was := range from {
		if _, there := to[path]; !there {
			d.FilesRemoved++
			d.Files = append(d.Files, report.FileDiff{Path: path, Change: report.Removed, From: info(was)})
		}
	}
	slices.SortFunc(d.Files, func(a, b report.FileDiff) int {
		// A directory comes before what is in it, and that before its neighbours.
		return cmp.Compare(strings.ReplaceAll(a.Path, "/", "\x00"), strings.ReplaceAll(b.Path, "/", "\x00"))
	})
	d.BytesNew = newBytes(from, to)
}

// differences returns what differs between two entries of one path, but for the time.
func differences(was, is entry) (what []string) {
	if was.kind != is.kind {
		what = append(what, "type")
	}
	for _, row := range []struct {
		differs bool
		text    string
	}{
		{was.content != is.content && was.kind == is.kind, "content"},
		{was.mode != is.mode && was.kind != "l" && is.kind != "l", "mode"},
		{was.uid != is.uid || was.gid != is.gid, "owner"},
		{was.link != is.link && was.kind == is.kind, "target"},
		{was.xattrs != is.xattrs, "attributes"},
		{was.hard != is.hard && was.kind == is.kind, "names"},
	} {
		if row.differs {
			what = append(what, row.text)
		}
	}
	return what
}

var types = map[string]string{"f": "file", "d": "directory", "l": "link", "p": "pipe"}

func info(e entry) *report.FileInfo {
	i := &report.FileInfo{Type: types[e.kind], Owner: e.uid, Group: e.gid, Size: e.size, Target: e.link, SameAs: e.hard}
	if e.kind != "l" {
		i.Mode = "0" + strings.Repeat("0", max(0, 3-len(e.mode))) + e.mode
	}
	return i
}

// newBytes returns the size of all contents that one tree has and the other has not.
func newBytes(from, to manifest) (bytes int64) {
	seen := map[string]bool{}
	for _, e := range from {
		seen[e.content] = true
	}
	for _, e := range to {
		if !seen[e.content] {
			seen[e.content] = true
			bytes += e.size
		}
	}
	return bytes
}
