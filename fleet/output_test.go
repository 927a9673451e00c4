package fleet

import (
	"sync/atomic"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/report"
)

func TestWhatIsKeptOfAllPlaces(t *testing.T) {
	var all atomic.Int64
	all.Store(mostOutput - 3<<19) // room for one and a half
	total := 0
	for i := range 3 {
		b := beginning{all: &all}
		for range 5 {
			if n, err := b.Write(make([]byte, 1<<19)); n != 1<<19 || err != nil {
				t.Fatal(n, err)
			}
		}
		if !b.cut || b.Len() > report.MostOutput {
			t.Errorf("stream %d: %d bytes, cut %t", i, b.Len(), b.cut)
		}
		total += b.Len()
	}
	if total != 3<<19 {
		t.Errorf("%d bytes are kept", total)
	}
}
