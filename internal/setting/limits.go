package setting

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/order"
)

// Infinite is the value of a [Ulimit] without a bound (RLIM_INFINITY).
const Infinite = math.MaxUint64

// MaxOpenFiles is the highest nofile that the kernel allows unless fs.nr_open was
// raised. util-vserver uses the same value.
const MaxOpenFiles = 1 << 20

// Resources are util-vserver's names of the limits that each process has.
var Resources = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "sigpending", "stack",
}

// Ulimit is a limit of each process of a guest. As text it is "nofile=1024:4096", or
// "core=0" where both halves are the same.
type Ulimit struct {
	Resource   string
	Soft, Hard uint64
}

// ParseUlimit is the inverse of [Ulimit.String]. Sizes may have units.
func ParseUlimit(s string) (u Ulimit, err error) {
	name, values, ok := strings.Cut(s, "=")
	if !ok || !slices.Contains(Resources, name) {
		return u, fmt.Errorf("want a resource of %s with = and a limit, as nofile=1024:4096 or core=0, have %q", strings.Join(Resources, ", "), s)
	}
	soft, hard, both := strings.Cut(values, ":")
	if !both {
		hard = soft
	}
	u.Resource = name
	if u.Soft, err = parseUlimit(soft); err == nil {
		u.Hard, err = parseUlimit(hard)
	}
	if err != nil {
		return u, fmt.Errorf("%s: %w", name, err)
	}
	if name == "nofile" {
		u.Soft, u.Hard = min(u.Soft, MaxOpenFiles), min(u.Hard, MaxOpenFiles)
	}
	if u.Soft > u.Hard {
		return u, fmt.Errorf("%s: the soft limit %s is above the hard limit %s", name, soft, hard)
	}
	return u, nil
}

func parseUlimit(s string) (uint64, error) {
	if s == "inf" || s == "unlimited" {
		return Infinite, nil
	}
	n, err := parseSize(s)
	if err != nil {
		return 0, fmt.Errorf("want a number, as 1024 or 64M, or inf, have %q", s)
	}
	return uint64(n), nil
}

func (u Ulimit) String() string {
	if u.Soft == u.Hard {
		return u.Resource + "=" + ulimitText(u.Soft)
	}
	return u.Resource + "=" + ulimitText(u.Soft) + ":" + ulimitText(u.Hard)
}

func ulimitText(n uint64) string {
	if n == Infinite {
		return "inf"
	}
	return strconv.FormatUint(n, 10)
}

// MarshalText and UnmarshalText use the text form.
func (u Ulimit) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (u *Ulimit) UnmarshalText(b []byte) (err error) {
	*u, err = ParseUlimit(string(b))
	return err
}

// Files returns the contents of the files in ulimits/ that stand for a list.
func Files(list []Ulimit) map[string]string {
	files := map[string]string{}
	for _, name := range Resources {
		for _, half := range []string{"", ".soft", ".hard"} {
			files["ulimits/"+name+half] = "" // removed
		}
	}
	for _, u := range list {
		if u.Soft == u.Hard {
			files["ulimits/"+u.Resource] = ulimitText(u.Soft) + "\n"
			continue
		}
		files["ulimits/"+u.Resource+".soft"] = ulimitText(u.Soft) + "\n"
		files["ulimits/"+u.Resource+".hard"] = ulimitText(u.Hard) + "\n"
	}
	return files
}

// IOLimit bounds what a guest reads from and writes to one disk per second; 0: no
// bound. As text it is "root rbps=10M wiops=1000".
type IOLimit struct {
	// Device is a path, MAJOR:MINOR, or "root": the disk that has the guest's own files.
	Device                   string
	RBps, WBps, RIOps, WIOps int64
}

// ParseIO parses a line of io.max, whose sizes may have units.
func ParseIO(s string) (l IOLimit, err error) {
	words := strings.Fields(s)
	bad := func(what string) (IOLimit, error) {
		return l, fmt.Errorf("%s: want a device (root, /dev/sda or 8:0) and rbps=, wbps=, riops= or wiops=, as \"root wbps=10M\", have %q", what, s)
	}
	if len(words) < 2 {
		return bad("too short")
	}
	l.Device = words[0]
	major, minor, numbers := strings.Cut(l.Device, ":")
	if l.Device != "root" && !strings.HasPrefix(l.Device, "/dev/") && !(numbers && isDigits(major) && isDigits(minor)) {
		return bad("no device")
	}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		to := l.rate(key)
		if to == nil {
			return bad("unknown rate " + strconv.Quote(key))
		}
		if value == "max" {
			*to = 0
			continue
		}
		if *to, err = parseSize(value); err != nil || *to == 0 {
			return bad("no rate " + strconv.Quote(value))
		}
	}
	if l == (IOLimit{Device: l.Device}) {
		return bad("no bound")
	}
	return l, nil
}

var rates = []string{"rbps", "wbps", "riops", "wiops"}

func (l *IOLimit) rate(key string) *int64 {
	switch key {
	case "rbps":
		return &l.RBps
	case "wbps":
		return &l.WBps
	case "riops":
		return &l.RIOps
	case "wiops":
		return &l.WIOps
	}
	return nil
}

func (l IOLimit) String() string {
	s := l.Device
	for _, key := range rates {
		n := *l.rate(key)
		if n == 0 {
			continue
		}
		text := count(n)
		if strings.HasSuffix(key, "bps") {
			text = size(n)
		}
		s += " " + key + "=" + text
	}
	return s
}

// Line returns the line that the kernel shows in io.max for the device with this
// number.
func (l IOLimit) Line(device string) string {
	s := device
	for _, key := range rates {
		text := "max"
		if n := *l.rate(key); n != 0 {
			text = strconv.FormatInt(n, 10)
		}
		s += " " + key + "=" + text
	}
	return s
}

// MarshalText uses the text form.
func (l IOLimit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (l *IOLimit) UnmarshalText(b []byte) (err error) {
	*l, err = ParseIO(string(b))
	return err
}

// oneDisk refuses two bounds of one device: the second would replace the first.
func oneDisk(list []IOLimit) error {
	seen := map[string]bool{}
	for _, l := range list {
		if seen[l.Device] {
			return fmt.Errorf("%s has two lines: put its bounds into one", l.Device)
		}
		seen[l.Device] = true
	}
	return nil
}

func oneResource(list []Ulimit) error {
	seen := map[string]bool{}
	for _, u := range list {
		if seen[u.Resource] {
			return fmt.Errorf("%s is there twice: want one limit, as %s=1024:4096", u.Resource, u.Resource)
		}
		seen[u.Resource] = true
	}
	return nil
}

// maxNumber bounds the numbers of processors and memory nodes (CONFIG_NR_CPUS).
const maxNumber = 8191

// numbers returns a list as "0-3,8" in the form in which the kernel shows it.
func numbers(s string) (string, error) {
	var on [maxNumber + 1]bool
	bad := fmt.Errorf("want numbers from 0 to %d, as 0-3,8, have %q", maxNumber, s)
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err1 := WholeNumber(from, 0, maxNumber)
		last, err2 := WholeNumber(to, 0, maxNumber)
		if err1 != nil || err2 != nil || first > last {
			return "", bad
		}
		for n := first; n <= last; n++ {
			on[n] = true
		}
	}
	var parts []string
	for n := 0; n <= maxNumber; n++ {
		if !on[n] {
			continue
		}
		last := n
		for last < maxNumber && on[last+1] {
			last++
		}
		part := strconv.Itoa(n)
		if last > n {
			part += "-" + strconv.Itoa(last)
		}
		parts = append(parts, part)
		n = last
	}
	return strings.Join(parts, ","), nil
}

// numberSet is a list of processors or memory nodes.
type numberSet struct{ at[string] }

func (n numberSet) parse(g *Guest, s string) (err error) {
	*n.at(g), err = numbers(s)
	return err
}

func (n numberSet) text(g *Guest) string    { return *n.at(g) }
func (n numberSet) same(a, b *Guest) bool   { return *n.at(a) == *n.at(b) }
func (n numberSet) content(g *Guest) string { return line(*n.at(g)) }
func (n numberSet) read(g *Guest, t Tree, file string) error {
	if s := t.Scalar(file); s != "" {
		return n.parse(g, s)
	}
	return nil
}

// weight is a share of 1 to 10000 (cgroup v2); 0: not set.
type weight struct{ at[int] }

func (w weight) parse(g *Guest, s string) error {
	n, err := WholeNumber(s, 1, 10000)
	*w.at(g) = int(n)
	return err
}

func (w weight) text(g *Guest) string    { return count(int64(*w.at(g))) }
func (w weight) same(a, b *Guest) bool   { return *w.at(a) == *w.at(b) }
func (w weight) content(g *Guest) string { return line(w.text(g)) }
func (w weight) read(g *Guest, t Tree, file string) error {
	if s := strings.TrimPrefix(t.Scalar(file), "default "); s != "" && s[0] != 'd' && isDigits(s) {
		return w.parse(g, s)
	}
	return nil // lines for single devices, which starts write as they are
}

// optional is a limit whose 0 means nothing at all; nil: no limit.
type optional struct{ at[*int64] }

func (o optional) parse(g *Guest, s string) error {
	n, err := parseSize(s)
	if err != nil {
		return fmt.Errorf("want a size, as 0, 512M or 2G, have %q", s)
	}
	*o.at(g) = &n
	return nil
}

func (o optional) text(g *Guest) string {
	n := *o.at(g)
	switch {
	case n == nil:
		return ""
	case *n == 0:
		return "0"
	}
	return size(*n)
}

func (o optional) same(a, b *Guest) bool { return o.text(a) == o.text(b) }
func (o optional) content(g *Guest) string {
	n := *o.at(g)
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10) + "\n"
}

func (o optional) read(g *Guest, t Tree, file string) error {
	s := t.Scalar(file)
	if s == "" || s == "max" {
		return nil
	}
	return o.parse(g, strings.ToUpper(s))
}

// burst is what a guest may save up of its processors: its file holds microseconds.
type burst struct{ at[float64] }

func (b burst) cores() cores                   { return cores(b) }
func (b burst) parse(g *Guest, s string) error { return b.cores().parse(g, s) }
func (b burst) text(g *Guest) string           { return b.cores().text(g) }
func (b burst) same(x, y *Guest) bool          { return b.cores().same(x, y) }
func (b burst) content(g *Guest) string        { return line(count(int64(math.Round(*b.at(g) * period)))) }
func (b burst) read(g *Guest, t Tree, file string) error {
	s := t.Scalar(file)
	if s == "" {
		return nil
	}
	n, err := WholeNumber(s, 0, math.MaxInt32)
	*b.at(g) = float64(n) / period
	return err
}

func burstWithin(g *Guest) error {
	if g.Limits.CPUBurst > 0 && g.Limits.CPUs > 0 && g.Limits.CPUBurst > g.Limits.CPUs {
		return fmt.Errorf("%v is more than limits.cpu, %v, and the kernel saves up at most that", g.Limits.CPUBurst, g.Limits.CPUs)
	}
	return notNegative(g.Limits.CPUBurst)
}

// IONice is a class and a level of disk access, as ionice(1) sets it. As text it is
// "best-effort:4" or "idle".
type IONice struct {
	Class int `json:"class"`           // 1 real time, 2 best effort, 3 idle; 0: by nice
	Level int `json:"level,omitempty"` // 0 goes first, 7 last
}

var ioClasses = []string{"none", "realtime", "best-effort", "idle"}

// ParseIONice is the inverse of [IONice.String]; a level alone means best-effort.
func ParseIONice(s string) (n IONice, err error) {
	class, level, hasLevel := strings.Cut(s, ":")
	if isDigits(class) && !hasLevel {
		class, level, hasLevel = "best-effort", class, true
	}
	n.Class = slices.Index(ioClasses, class)
	if n.Class < 1 {
		return n, fmt.Errorf("want idle, best-effort:0 to best-effort:7, or realtime:0 to realtime:7, have %q", s)
	}
	if n.Class < 3 {
		n.Level = 4
	}
	if hasLevel {
		var l int64
		if l, err = WholeNumber(level, 0, 7); err != nil || n.Class == 3 {
			return n, fmt.Errorf("want idle without a level, or another class with a level from 0 (first) to 7 (last), have %q", s)
		}
		n.Level = int(l)
	}
	return n, nil
}

func (n IONice) String() string {
	switch {
	case n.Class <= 0 || n.Class >= len(ioClasses):
		return ""
	case n.Class == 3:
		return ioClasses[3]
	}
	return ioClasses[n.Class] + ":" + strconv.Itoa(n.Level)
}

func validIONice(g *Guest) error {
	if n := g.IONice; n.Class < 0 || n.Class > 3 || n.Level < 0 || n.Level > 7 {
		return fmt.Errorf("want a class from 1 to 3 and a level from 0 to 7, have %d:%d", n.Class, n.Level)
	}
	return nil
}

// ioNice is the row's value; node/guest reads and writes its two files.
type ioNice struct{ several[IONice] }

func (i ioNice) parse(g *Guest, s string) (err error) {
	g.IONice, err = ParseIONice(s)
	return err
}

// amount is a limit that node/guest reads from files of its own.
type amount struct {
	several[int64]
	inventory func(string) (int64, error)
}

func amountOf(f at[int64], inventory func(string) (int64, error), people func(int64) string) amount {
	return amount{several[int64]{f, func(g *Guest) string { return people(*f(g)) }}, inventory}
}

func (a amount) parse(g *Guest, s string) (err error) {
	*a.at(g), err = a.inventory(s)
	return err
}

// ulimits is a list that node/guest reads from files of its own.
type ulimits struct{ list[Ulimit] }

func (ulimits) content(*Guest) string { return "" }

// parse keeps the order in which a host reads the files.
func (u ulimits) parse(g *Guest, s string) error {
	err := u.list.parse(g, s)
	order.Stable(*u.at(g), func(a, b Ulimit) int { return strings.Compare(a.Resource, b.Resource) })
	return err
}

// inodes parses a number of files, which may have k (1000) or m (1000000) behind it.
func inodes(s string) (int64, error) {
	digits, unit := s, int64(1)
	if cut := strings.TrimSuffix(s, "k"); cut != s {
		digits, unit = cut, 1000
	} else if cut := strings.TrimSuffix(s, "m"); cut != s {
		digits, unit = cut, 1000_000
	}
	n, err := WholeNumber(digits, 1, math.MaxInt32)
	if err != nil || n*unit < 100 || n*unit > math.MaxInt32*2 {
		return 0, fmt.Errorf("want a number of files of at least 100, as 50000 or 200k, have %q", s)
	}
	return n * unit, nil
}

// softBelow refuses a soft limit that is not below its hard one.
func softBelow(soft, hard int64, what string) error {
	if soft > 0 && hard > 0 && soft > hard {
		return fmt.Errorf("the soft limit is above the hard limit, limits.%s", what)
	}
	return errors.Join(notNegative(soft), notNegative(hard))
}
