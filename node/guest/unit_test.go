package guest

import (
	"slices"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// What counts among guests is the unit's: the cgroup within has no other guest beside it.
func TestTheUnitHasWhatGuestsHaveAgainstEachOther(t *testing.T) {
	c := Config{Guest: api.Guest{Name: "www", Limits: api.Limits{
		MemoryBytes: 1 << 30, CPUs: 1.5, CPUWeight: 200, IOWeight: 50, MemoryLowBytes: 1 << 20, MemoryMinBytes: 4096,
	}}}
	want := []string{"CPUWeight=200", "IOWeight=50", "MemoryLow=1048576", "MemoryMin=4096"}
	if got := unitOf(c).Shares; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := unitOf(Config{Guest: api.Guest{Name: "www", Limits: api.Limits{MemoryBytes: 1 << 30}}}).Shares; got != nil {
		t.Errorf("%q, want none", got)
	}
}
