package guest

import (
	"os"
	"path/filepath"
	"testing"
)

// A host's own resolver on 127.0.0.1 is not reachable for the guest.
func TestResolversOnTheHostsLoopbackAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	stub, upstream, none := filepath.Join(dir, "stub"), filepath.Join(dir, "upstream"), filepath.Join(dir, "none")
	must(t, os.WriteFile(stub, []byte("# by hand\nnameserver 127.0.0.1\nnameserver ::1\nsearch example.org\n"), 0o644))
	must(t, os.WriteFile(upstream, []byte("nameserver 192.0.2.53\nnameserver 127.0.0.1\n"), 0o644))
	for _, row := range []struct {
		name  string
		files []string
		want  string
	}{
		{"a stub whose servers are noted elsewhere", []string{none, stub, upstream}, "nameserver 192.0.2.53\n"},
		{"a stub alone", []string{stub}, ""},
		{"no file", []string{none}, ""},
	} {
		if got := resolvConf(row.files); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
