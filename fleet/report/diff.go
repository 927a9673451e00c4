package report

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/vsfleet/vsfleet/node/api"
)

// Diff returns how the files of a step differ from what the host reported of them. The
// content of secret files is not shown.
func Diff(files []api.File, have []api.FileState) string {
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
			fmt.Fprintf(&b, "%s: secret, not shown\n", f.Path)
		case large:
			fmt.Fprintf(&b, "%s: too long, not shown\n", f.Path)
		case !isText(old) || !isText(f.Content):
			fmt.Fprintf(&b, "%s: not a text, not shown\n", f.Path)
		default:
			b.Write(diff.Diff(f.Path+" (on the host)", old, f.Path+" (in the inventory)", f.Content))
		}
	}
	return b.String()
}

func isText(b []byte) bool { return utf8.Valid(b) && !strings.ContainsRune(string(b), 0) }
