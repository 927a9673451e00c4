package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// TestLimitsOfARunningGuest: where cgroup v2 has the controller the limit holds
// at once; where it has not, that is said.
func TestLimitsOfARunningGuest(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "usage", 177, "sleep", "1000")
	must(t, h.Create(ctx, g))
	if err := h.SetLimit(ctx, g.Name, "pids.max", "10"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a stopped guest: %v", err)
	}
	must(t, h.Start(ctx, g.Name, Options{}))
	mount, err := cgroup.Mount()
	must(t, err)
	for _, row := range []struct{ resource, controller string }{{"nproc", "pids"}, {"rss", "memory"}} {
		have, err := cgroup.HasController(mount, row.controller)
		must(t, err)
		file := LimitFiles[row.resource].Hard
		err = h.SetLimit(ctx, g.Name, file, "104857600")
		if !have {
			if err == nil || !strings.Contains(err.Error(), `controller "`+row.controller+`" is not in cgroup v2`) {
				t.Errorf("%s without the controller: %v", file, err)
			}
			continue
		}
		if err != nil && row.controller == "memory" {
			t.Errorf("%s: %v", file, err)
		}
		got, err := os.ReadFile(filepath.Join(mount, "vservers", g.Name, file))
		must(t, err)
		if row.controller == "memory" && string(got) != "104857600\n" {
			t.Errorf("%s is %s", file, got)
		}
	}
}

// Where no controller counts processes, the notes of the start have the limit.
func TestLivesHaveTheLimitOfProcesses(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeShared, "counted", 206, "sleep", "1000")
	g.Limits.Processes = 50
	configured(t, h, g, nil)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	list, err := h.Lives(t.Context())
	must(t, err)
	if i := slices.IndexFunc(list, func(l Life) bool { return l.Name == g.Name }); i < 0 || list[i].Processes != 50 {
		t.Errorf("it runs with %+v", list)
	}
}
