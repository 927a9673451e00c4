package stat

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
)

// Counters returns what the cgroup at path uses of its limits. processes is the number of
// its processes, and limit what they are limited to (0: nothing), for a host on which no
// controller counts them. Files that the kernel or the host does not have leave fields
// nil.
func Counters(path string, processes int, limit int64) []api.Counter {
	c := counted(path)
	memory := api.Counter{
		Resource: "memory", Bytes: true, Current: c.number("memory.current"), Peak: c.number("memory.peak"),
		Soft: c.number("memory.high"), Hard: c.number("memory.max"), Hits: c.field("memory.events", "max"),
	}
	swap := api.Counter{
		Resource: "swap", Bytes: true, Current: c.number("memory.swap.current"), Peak: c.number("memory.swap.peak"),
		Soft: c.number("memory.swap.high"), Hard: c.number("memory.swap.max"), Hits: c.field("memory.swap.events", "max"),
	}
	tasks := api.Counter{
		Resource: "processes", Current: c.number("pids.current"), Peak: c.number("pids.peak"),
		Hard: c.number("pids.max"), Hits: c.field("pids.events", "max"),
	}
	if tasks.Current == nil {
		tasks.Current = new(int64(processes))
		if limit > 0 {
			tasks.Hard = &limit
		}
	}
	cpu := api.Counter{Resource: "cpu", Hits: c.field("cpu.stat", "nr_throttled")}
	if quota, period, ok := strings.Cut(c.text("cpu.max"), " "); ok {
		q, qerr := strconv.ParseInt(quota, 10, 64)
		p, perr := strconv.ParseInt(period, 10, 64)
		if qerr == nil && perr == nil && p > 0 {
			cpu.Hard = new(q * 1000 / p)
		}
	}
	killed := api.Counter{Resource: "out of memory", Hits: c.field("memory.events", "oom_kill")}
	list := []api.Counter{memory, swap, killed, tasks, cpu}
	for _, io := range [][2]string{{"disk read", "rbytes"}, {"disk written", "wbytes"}} {
		list = append(list, api.Counter{Resource: io[0], Bytes: true, Current: c.sum("io.stat", io[1])})
	}
	return list
}

// counted is the directory of a cgroup.
type counted string

func (c counted) text(file string) string {
	b, err := os.ReadFile(filepath.Join(string(c), file))
	if err != nil {
		return "" // there is no such counter here
	}
	return strings.TrimSpace(string(b))
}

// number returns the number in a file; nil if there is none, or "max".
func (c counted) number(file string) *int64 {
	n, err := strconv.ParseInt(c.text(file), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// field returns the number behind a word, as in "max 3".
func (c counted) field(file, name string) *int64 {
	for line := range strings.Lines(c.text(file)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64); err == nil {
				return &n
			}
		}
	}
	return nil
}

// sum adds the numbers of one name, as in "8:0 rbytes=1 wbytes=2", over all lines.
func (c counted) sum(file, name string) *int64 {
	text := c.text(file)
	if text == "" {
		return nil
	}
	var sum int64
	for word := range strings.FieldsSeq(text) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			n, _ := strconv.ParseInt(value, 10, 64)
			sum += n
		}
	}
	return &sum
}
