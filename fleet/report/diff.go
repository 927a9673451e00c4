package report

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

// Diff returns how the files of a step, which come from somewhere ("the inventory"),
// differ from what the host reported of them. The content of secret files is not shown.
func Diff(files []api.File, from string, have []api.FileState) string {
	var b strings.Builder
	for _, f := range files {
		var old []byte
		large := len(f.Content) > api.MaxShown
		for _, h := range have {
			if h.Path == f.Path {
				old, large = h.Content, large || h.Large
			}
		}
		switch {
		case f.Secret:
			fmt.Fprintf(&b, "%s: (secret)\n", f.Path)
		case large:
			fmt.Fprintf(&b, "%s: too long, not shown\n", f.Path)
		case !isText(old) || !isText(f.Content):
			fmt.Fprintf(&b, "%s: not a text, not shown\n", f.Path)
		default:
			b.Write(diff.Diff(f.Path+" (on the host)", old, f.Path+" (in "+from+")", f.Content))
		}
	}
	return b.String()
}

// SettingsDiff returns the differences between the settings of a guest and those on the
// host; have is nil if the host does not have the guest. Images appear with their
// digests; the reason of the step has their names.
func SettingsDiff(have, want *api.Guest) string {
	if have == nil {
		have = &api.Guest{}
	}
	var b strings.Builder
	line := func(key, was, is string) {
		if was != "" && was != is {
			fmt.Fprintf(&b, "-%s: %s\n", key, was)
		}
		if is != "" && was != is {
			fmt.Fprintf(&b, "+%s: %s\n", key, is)
		}
	}
	line("context", number(have.Context), number(want.Context))
	for _, row := range setting.Table {
		was := ""
		if have.Name != "" {
			was = row.Text(have)
		}
		line(row.Key, was, row.Text(want))
	}
	return b.String()
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func isText(b []byte) bool { return utf8.Valid(b) && !strings.ContainsRune(string(b), 0) }
