package guest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// The host's users database knows the root of a guest while it runs.
func TestRootOfAGuestHasANameOnTheHost(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	h.UserDir = t.TempDir()
	g := inMode(api.ModeShared, "named.db", 127, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	const id = 127 << 16
	for _, row := range []struct {
		file, key string
		want      any
	}{
		{"8323072.user", "userName", "vs-named.db"},
		{"vs-named.db.user", "uid", float64(id)},
		{"vs-named.db.user", "gid", float64(id)},
		{"vs-named.db.user", "realName", "root of guest named.db"},
		{"vs-named.db.user", "locked", true},
		{"8323072.group", "groupName", "vs-named.db"},
		{"vs-named.db.group", "gid", float64(id)},
	} {
		text, err := os.ReadFile(filepath.Join(h.UserDir, row.file))
		must(t, err)
		var record map[string]any
		must(t, json.Unmarshal(text, &record))
		if record[row.key] != row.want {
			t.Errorf("%s: %s is %v, want %v", row.file, row.key, record[row.key], row.want)
		}
	}
	_, err := h.Stop(ctx, g.Name)
	must(t, err)
	if left, err := os.ReadDir(h.UserDir); err != nil || len(left) != 0 {
		t.Errorf("the guest has stopped, and left %v (%v)", left, err)
	}
}
