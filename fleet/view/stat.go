package view

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/node/api"
)

// HostStat is the answer of one host.
type HostStat struct {
	Host string
	api.Stat
	Result report.Result // if the host did not answer: why
}

func (h HostStat) failed() bool { return h.Result.Status != "" && h.Result.Status != outcome.OK }

// StatOptions select how the counters of a fleet are shown.
type StatOptions struct {
	By   *Grouping // nil: each guest of each host
	Sort string    // a column; empty: as the hosts came, by context
}

// Grouping selects which rows are added up.
type Grouping struct {
	Column string                                  // its heading: "HOST"
	Key    func(host string, r api.StatRow) string // returns the group of a row
}

// ByHost makes one row per host, of its guests and itself.
func ByHost() *Grouping {
	return &Grouping{"HOST", func(host string, _ api.StatRow) string { return host }}
}

// ByGuest makes one row per name of guests, over all hosts, and one of the hosts
// themselves.
func ByGuest() *Grouping {
	return &Grouping{"GUEST", func(_ string, r api.StatRow) string { return r.Name }}
}

// line is a row of the table: one guest, or a group.
type line struct {
	label string // host or group
	api.StatRow
	hosts  int // of a group
	guests int
	last   string // the host that was counted last
}

// Stat prints the counters of a fleet: the columns of vserver-stat after HOST, with
// the sum below, or one row per group. 10,000 rows take milliseconds.
func Stat(w io.Writer, f Format, hosts []HostStat, o StatOptions) error {
	lines := statLines(hosts, o.By)
	if o.Sort != "" {
		if err := sortLines(lines, o.Sort, o.By); err != nil {
			return err
		}
	}
	if o.By != nil {
		return Write(w, f, statSums(lines, hosts), func(w io.Writer) error { return writeSums(w, o.By.Column, lines) })
	}
	records := statRecords(lines)
	answered := 0
	for _, h := range hosts {
		if h.failed() {
			records = append(records, StatRecords(h)...)
		} else {
			answered++
		}
	}
	return Write(w, f, records, func(w io.Writer) error { return writeLines(w, lines, answered) })
}

// StatRecords returns the counters of one host, or why there are none.
func StatRecords(h HostStat) []report.StatRecord {
	if h.failed() {
		return []report.StatRecord{{Host: h.Host, Result: h.Result}}
	}
	return statRecords(statLines([]HostStat{h}, nil))
}

func statLines(hosts []HostStat, by *Grouping) []line {
	var lines []line
	groups := map[string]int{}
	for _, h := range hosts {
		for _, r := range h.Rows {
			if by == nil {
				lines = append(lines, line{label: h.Host, StatRow: r})
				continue
			}
			key := by.Key(h.Host, r)
			i, known := groups[key]
			if !known {
				i = len(lines)
				groups[key] = i
				lines = append(lines, line{label: key})
			}
			lines[i].add(h.Host, r)
		}
	}
	return lines
}

func (l *line) add(host string, r api.StatRow) {
	if l.hosts == 0 || l.last != host { // rows of one host come together
		l.hosts++
		l.last = host
	}
	if r.Context != 0 {
		l.guests++
	}
	l.Processes += r.Processes
	l.VSZ += r.VSZ
	l.RSS += r.RSS
	l.User += r.User
	l.Sys += r.Sys
	l.Uptime = max(l.Uptime, r.Uptime) // as vserver-stat's is that of the oldest process
}

// sortLines sorts by a column of the table: texts in ascending order, numbers in
// descending order. The sort is stable.
func sortLines(lines []line, column string, by *Grouping) error {
	text := func(f func(line) string) func(a, b line) int {
		return func(a, b line) int { return strings.Compare(f(a), f(b)) }
	}
	columns := map[string]func(a, b line) int{
		"proc":     func(a, b line) int { return cmp.Compare(b.Processes, a.Processes) },
		"vsz":      func(a, b line) int { return cmp.Compare(b.VSZ, a.VSZ) },
		"rss":      func(a, b line) int { return cmp.Compare(b.RSS, a.RSS) },
		"usertime": func(a, b line) int { return cmp.Compare(b.User, a.User) },
		"systime":  func(a, b line) int { return cmp.Compare(b.Sys, a.Sys) },
		"uptime":   func(a, b line) int { return cmp.Compare(b.Uptime, a.Uptime) },
	}
	if by == nil {
		columns["host"] = text(func(l line) string { return l.label })
		columns["name"] = text(func(l line) string { return l.Name })
		columns["ctx"] = func(a, b line) int { return cmp.Compare(a.Context, b.Context) }
	} else {
		columns[strings.ToLower(by.Column)] = text(func(l line) string { return l.label })
		columns["hosts"] = func(a, b line) int { return cmp.Compare(b.hosts, a.hosts) }
		columns["guests"] = func(a, b line) int { return cmp.Compare(b.guests, a.guests) }
	}
	compare := columns[strings.ToLower(column)]
	if compare == nil {
		var names []string
		for name := range columns {
			names = append(names, name)
		}
		slices.Sort(names)
		return fmt.Errorf("cannot sort by %q: want %s", column, strings.Join(names, ", "))
	}
	slices.SortStableFunc(lines, compare)
	return nil
}

// statHeader is exactly that of vserver-stat.
const statHeader = "CTX   PROC    VSZ    RSS  userTIME   sysTIME    UPTIME NAME"

// write prints the columns that all tables have.
func (l line) write(out *bufio.Writer, uptime string) {
	fmt.Fprintf(out, " %4d%7s%7s%10s%10s%10s", l.Processes, Bytes(l.VSZ), Bytes(l.RSS), clock(l.User), clock(l.Sys), uptime)
}

func writeLines(w io.Writer, lines []line, hosts int) error {
	out := bufio.NewWriter(w)
	var sum line
	width := len("HOST")
	for _, l := range lines {
		width = max(width, utf8.RuneCountInString(Clean(l.label)))
		sum.add(l.label, l.StatRow)
	}
	// On a narrow terminal the host and the name, which is last, are cut off.
	last := math.MaxInt
	if columns := columnsOf(w); columns > 0 {
		numbers := len("  ") + len(statHeader) - len("NAME")
		width = min(width, max(fewest, columns-numbers-fewest))
		last = max(fewest, columns-numbers-width)
	}
	fmt.Fprintf(out, "%-*s  %s\n", width, "HOST", statHeader)
	for _, l := range lines {
		fmt.Fprintf(out, "%-*s  %-5d", width, truncate(Clean(l.label), width), l.Context)
		l.write(out, clock(l.Uptime))
		fmt.Fprintf(out, " %s\n", truncate(Clean(l.Name), last))
	}
	fmt.Fprintf(out, "%-*s  %-5s", width, "SUM", "")
	sum.write(out, "")
	fmt.Fprintf(out, " %s\n", truncate(Count(sum.guests, "guest")+" on "+Count(hosts, "host"), last))
	return out.Flush()
}

func writeSums(w io.Writer, column string, lines []line) error {
	out := bufio.NewWriter(w)
	width := len(column)
	for _, l := range lines {
		width = max(width, len(Clean(l.label)))
	}
	header := strings.TrimSuffix(strings.TrimPrefix(statHeader, "CTX  "), " NAME")
	fmt.Fprintf(out, "%-*s  HOSTS GUESTS %s\n", width, column, header)
	for _, l := range lines {
		fmt.Fprintf(out, "%-*s  %5d %6d ", width, Clean(l.label), l.hosts, l.guests)
		l.write(out, clock(l.Uptime))
		fmt.Fprintln(out)
	}
	return out.Flush()
}

// Count formats a number of things: "1 guest", "2 guests".
func Count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

func statRecords(lines []line) []report.StatRecord {
	records := make([]report.StatRecord, 0, len(lines))
	for _, l := range lines {
		r := report.StatRecord{
			Host: l.label, Context: l.Context, Name: l.Name, Processes: l.Processes,
			VSZBytes: l.VSZ, RSSBytes: l.RSS,
			UserSeconds: report.Seconds(l.User), SysSeconds: report.Seconds(l.Sys), UptimeSeconds: report.Seconds(l.Uptime),
			Result: report.Result{Status: outcome.OK},
		}
		if t := l.Traffic; t != nil {
			r.InPackets, r.InBytes = new(t.V4In.Packets+t.V6In.Packets), new(t.V4In.Bytes+t.V6In.Bytes)
			r.OutPackets, r.OutBytes = new(t.V4Out.Packets+t.V6Out.Packets), new(t.V4Out.Bytes+t.V6Out.Bytes)
		}
		records = append(records, r)
	}
	return records
}

func statSums(lines []line, hosts []HostStat) []report.StatSum {
	sums := make([]report.StatSum, 0, len(lines))
	for _, l := range lines {
		sums = append(sums, report.StatSum{
			Group: l.label, Hosts: l.hosts, Guests: l.guests, Processes: l.Processes,
			VSZBytes: l.VSZ, RSSBytes: l.RSS,
			UserSeconds: report.Seconds(l.User), SysSeconds: report.Seconds(l.Sys), UptimeSeconds: report.Seconds(l.Uptime),
			Result: report.Result{Status: outcome.OK},
		})
	}
	for _, h := range hosts {
		if h.failed() {
			sums = append(sums, report.StatSum{Host: h.Host, Result: h.Result})
		}
	}
	return sums
}
