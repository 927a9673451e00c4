package guest

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/vsyntax"
	"github.com/vsfleet/vsfleet/node/api"
)

func within10(s string, first, last int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < first || n > last {
		return 0, fmt.Errorf("want a number from %d to %d, not %q", first, last, s)
	}
	return n, nil
}

// personalityFlags are those of personality(2).
var personalityFlags = vsyntax.Table{What: "flag of personality(2)", Flags: []vsyntax.Flag{
	{Names: []string{"uname26"}, Mask: 0x20000},
	{Names: []string{"addr_no_randomize"}, Mask: 0x40000},
	{Names: []string{"fdpic_funcptrs"}, Mask: 0x80000},
	{Names: []string{"mmap_page_zero"}, Mask: 0x100000},
	{Names: []string{"addr_compat_layout"}, Mask: 0x200000},
	{Names: []string{"read_implies_exec"}, Mask: 0x400000},
	{Names: []string{"addr_limit_32bit"}, Mask: 0x800000},
	{Names: []string{"short_inode"}, Mask: 0x1000000},
	{Names: []string{"whole_seconds"}, Mask: 0x2000000},
	{Names: []string{"sticky_timeouts"}, Mask: 0x4000000},
	{Names: []string{"addr_limit_3gb"}, Mask: 0x8000000},
}}

// readPersonality reads a type, which can only be LINUX, and flags.
func (c *Config) readPersonality(t *tree) {
	text, _ := t.read("personality")
	refuse := func(why string) {
		c.Unread = append(c.Unread, api.Unread{File: "personality", Refuses: true, Why: why})
	}
	words := vsyntax.Words(text)
	if len(words) == 0 {
		return
	}
	switch first := strings.TrimPrefix(strings.ToLower(words[0].Text), "per_"); first {
	case "linux":
		text = strings.Replace(text, words[0].Text, strings.Repeat(" ", len(words[0].Text)), 1)
	case "linux32", "linux_32bit", "linux32_3gb":
		refuse(words[0].Text + ": programs are those of the host's architecture: calls of 32-bit programs are refused")
		return
	}
	items, err := personalityFlags.Parse(text)
	if err != nil {
		refuse("at " + err.Error() + "; the only type is LINUX")
		return
	}
	c.Personality = uint32(vsyntax.Apply(0, items))
}

// bucket is a token bucket of Linux-VServer's scheduler: FillRate of every Interval
// ticks of a processor.
type bucket struct{ fillRate, interval uint64 }

const maxTicks = 1 << 20

// readSched translates a token bucket into what cgroup v2 has: with the flag sched_hard
// a limit, with sched_prio or idle-time (which gave away what others left) a weight, of
// which the kernel's own bucket, 1 of 4, is 100. Files in cgroup/ take precedence.
func (c *Config) readSched(t *tree) error {
	put := func(file, value string) {
		if _, given := c.Cgroup[file]; !given {
			c.Cgroup[file] = value
		}
	}
	if s := t.scalar("sched/priority-bias"); s != "" {
		n, err := within10(s, -20, 19)
		if err != nil {
			return fmt.Errorf("sched/priority-bias: %w", err)
		}
		put("cpu.weight", strconv.Itoa(niceWeight(n)))
	}
	b, file, err := readBucket(t)
	if err != nil || b.interval == 0 {
		return err
	}
	flagWords, _ := t.read("flags")
	older, _ := t.read("cflags")
	items, _ := oldTable(oldLists[0].table, contextFlags).Parse(flagWords + "\n" + older) // readFlags names mistakes
	flags := vsyntax.Apply(0, items)
	switch shares := flags&schedPrio != 0 || t.has("sched/idle-time"); {
	case flags&(schedHard|schedPrio) == 0:
		c.Unread = append(c.Unread, api.Unread{File: file, Why: "without the flag sched_hard or sched_prio no kernel has used it: cgroup/cpu.max limits processors, cgroup/cpu.weight shares them"})
	case shares:
		put("cpu.weight", strconv.FormatUint(min(max(400*b.fillRate/b.interval, 1), 10000), 10))
	default:
		quota := uint64(runtime.NumCPU()) * cpuPeriod * b.fillRate / b.interval
		put(cpuFile, fmt.Sprintf("%d %d", max(quota, 1000), cpuPeriod))
	}
	return nil
}

// niceWeight returns the weight that the kernel gives a nice value (cpu.weight.nice):
// each step is a quarter.
func niceWeight(nice int) int {
	weight := 100.0
	for ; nice > 0; nice-- {
		weight /= 1.25
	}
	for ; nice < 0; nice++ {
		weight *= 1.25
	}
	return min(max(int(weight+0.5), 1), 10000)
}

// readBucket reads sched/fill-rate and sched/interval, or the first two lines of
// schedule, of which they are the older form.
func readBucket(t *tree) (b bucket, file string, err error) {
	rate, interval, file := t.scalar("sched/fill-rate"), t.scalar("sched/interval"), "sched/fill-rate"
	if rate == "" && interval == "" {
		lines := append(t.list("schedule"), "", "")
		rate, interval, file = lines[0], lines[1], "schedule"
	}
	if rate == "" && interval == "" {
		return b, file, nil
	}
	b = bucket{1, 4} // the kernel's own
	for _, of := range []struct {
		text string
		to   *uint64
	}{{rate, &b.fillRate}, {interval, &b.interval}} {
		if of.text == "" {
			continue
		}
		n, err := vsyntax.Number(of.text)
		if err != nil || n == 0 || n > maxTicks {
			return b, file, fmt.Errorf("%s: want a number from 1 to %d, not %q", file, maxTicks, of.text)
		}
		*of.to = n
	}
	b.fillRate = min(b.fillRate, b.interval) // a whole processor
	return b, file, nil
}
