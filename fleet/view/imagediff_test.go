package view

import (
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/report"
)

func TestImageDiff(t *testing.T) {
	file := func(mode string, size int64) *report.FileInfo {
		return &report.FileInfo{Type: "file", Mode: mode, Size: size}
	}
	dir := &report.FileInfo{Type: "directory", Mode: "0755"}
	d := report.ImageDiff{
		From:       report.ComparedImage{Name: "base", Version: 1, ID: "sha256:1111111111111111", Arch: "amd64", Bytes: 1 << 20},
		To:         report.ComparedImage{Name: "base", Version: 2, ID: "sha256:2222222222222222", Arch: "amd64", Bytes: 2 << 20},
		FilesAdded: 3, FilesChanged: 2, FilesRemoved: 1, TimesOnly: 7, BytesNew: 5000, PackagesFrom: 9, PackagesTo: 10,
		Packages: []report.PackageDiff{{Name: "libc6", Change: report.Upgraded, From: "2.36-9", To: "2.36-10"}, {Name: "nano", Change: report.Added, To: "7.2"}},
		Files: []report.FileDiff{
			{Path: "bin/su", Change: report.Changed, What: []string{"content", "mode"}, From: file("0755", 10), To: file("04755", 12)},
			{Path: "etc/x\x1b[m", Change: report.Changed, What: []string{"owner"}, From: file("0644", 3), To: &report.FileInfo{Type: "file", Mode: "0644", Owner: 33, Group: 33, Size: 3}},
			{Path: "opt/new", Change: report.Added, To: dir},
			{Path: "opt/new/a", Change: report.Added, To: file("0644", 2000)},
			{Path: "opt/new2", Change: report.Added, To: file("04755", 1)},
			{Path: "usr/link", Change: report.Removed, From: &report.FileInfo{Type: "link", Target: "there"}},
		},
	}
	for _, row := range []struct {
		name  string
		diff  report.ImageDiff
		limit int
		want  string
	}{
		{"all of it", d, 0, `base@1 (111111111111) → base@2 (222222222222), amd64
packages: 1 upgraded, 1 added; 9 → 10
files: 2 changed, 3 added, 1 removed, 7 only with another time; 1M → 2M, new contents 4.8K

CHANGE    PACKAGE  FROM    TO
upgraded  libc6    2.36-9  2.36-10
added     nano             7.2

CHANGE   PATH         WHAT                        SIZE
changed  bin/su       content, mode 0755 → 04755  10 → 12
changed  etc/x\x1b[m  owner 0:0 → 33:33           3
added    opt/new/     directory, 1 below it       1.9K
added    opt/new2     mode 04755                  1
removed  usr/link     link to there
`},
		{"the first of each", d, 1, `base@1 (111111111111) → base@2 (222222222222), amd64
packages: 1 upgraded, 1 added; 9 → 10
files: 2 changed, 3 added, 1 removed, 7 only with another time; 1M → 2M, new contents 4.8K

CHANGE    PACKAGE  FROM    TO
upgraded  libc6    2.36-9  2.36-10
… and 1 more; --rows 0 shows all

CHANGE   PATH    WHAT                        SIZE
changed  bin/su  content, mode 0755 → 04755  10 → 12
… and 4 more; --rows 0 shows all
`},
		{"the same", report.ImageDiff{From: d.From, To: d.From}, 1, "base@1 (111111111111) and base@1 (111111111111) are the same image\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var b strings.Builder
			if err := ImageDiff(&b, row.diff, row.limit); err != nil || b.String() != row.want {
				t.Errorf("%v\n%s\nwant\n%s", err, b.String(), row.want)
			}
		})
	}
}
