package procctx

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExposedSources(t *testing.T) {
	open, err := os.MkdirTemp("/var/lib", "vsfleet-exposed-")
	if err == nil {
		err = os.Chmod(open, 0o755)
	}
	if err == nil {
		err = os.Mkdir(open+"/source", 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(open)
	for _, row := range []struct {
		what   string
		source string
		attrs  uint64
		want   bool
	}{
		{"a directory that users reach", open + "/source", 0, true},
		{"a read-only one", open + "/source", unix.MOUNT_ATTR_RDONLY, false},
		{"one that is not there", open + "/nosuch", 0, false},
		{"a tmpfs", "", 0, false},
	} {
		if got := (Mount{Source: row.source, Attrs: row.attrs}).Exposed(); got != row.want {
			t.Errorf("%s: %v", row.what, got)
		}
	}
}
