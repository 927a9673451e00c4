package stat

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/node/api"
)

func TestCounters(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	for _, row := range []struct {
		what  string
		limit int64
		files map[string]string
		want  []api.Counter
	}{
		{"all controllers", 50, map[string]string{
			"memory.current": "4096\n", "memory.peak": "8192\n", "memory.high": "max\n", "memory.max": "16384\n",
			"memory.events": "low 0\nhigh 1\nmax 7\noom 2\noom_kill 3\n", "memory.swap.current": "0\n", "memory.swap.max": "0\n",
			"pids.current": "5\n", "pids.peak": "9\n", "pids.max": "10\n", "pids.events": "max 2\n",
			"cpu.max": "150000 100000\n", "cpu.stat": "usage_usec 5\nnr_throttled 4\n", "io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=0\n",
		}, []api.Counter{
			{Resource: "memory", Bytes: true, Current: n(4096), Peak: n(8192), Hard: n(16384), Hits: n(7)},
			{Resource: "swap", Bytes: true, Current: n(0), Hard: n(0)},
			{Resource: "out of memory", Hits: n(3)},
			{Resource: "processes", Current: n(5), Peak: n(9), Hard: n(10), Hits: n(2)},
			{Resource: "cpu", Hard: n(1500), Hits: n(4)},
			{Resource: "disk read", Bytes: true, Current: n(15)}, {Resource: "disk written", Bytes: true, Current: n(20)},
		}},
		{"no controllers", 0, map[string]string{"cpu.stat": "usage_usec 5\n"}, []api.Counter{
			{Resource: "memory", Bytes: true}, {Resource: "swap", Bytes: true}, {Resource: "out of memory"},
			{Resource: "processes", Current: n(3)}, {Resource: "cpu"}, {Resource: "disk read", Bytes: true}, {Resource: "disk written", Bytes: true},
		}},
		{"a limit of processes without a controller", 50, nil, []api.Counter{
			{Resource: "memory", Bytes: true}, {Resource: "swap", Bytes: true}, {Resource: "out of memory"},
			{Resource: "processes", Current: n(3), Hard: n(50)}, {Resource: "cpu"}, {Resource: "disk read", Bytes: true}, {Resource: "disk written", Bytes: true},
		}},
	} {
		t.Run(row.what, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range row.files {
				if err := os.WriteFile(dir+"/"+name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(row.want, Counters(dir, 3, row.limit)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
