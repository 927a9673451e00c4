package guest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// TestUsageAndLimitsOfARunningGuest: where cgroup v2 has the controller the limit holds
// at once and is counted; where it has not, that is said.
func TestUsageAndLimitsOfARunningGuest(t *testing.T) {
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
		all, err := h.Usage(g.Name)
		must(t, err)
		for _, u := range all {
			if u.Resource == row.resource && (u.Current == "-" || u.Current == "0" || row.controller == "memory" && u.Hard != "104857600") {
				t.Errorf("usage %+v", u)
			}
		}
	}
	all, err := h.Usage(g.Name)
	must(t, err)
	if len(all) != 3 {
		t.Errorf("usage %+v", all)
	}
}
