package setting

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// at returns a pointer to the setting's field.
type at[T any] func(*Guest) *T

func (f at[T]) assign(to, from *Guest) { *f(to) = *f(from) }

// word is a single line.
type word struct {
	at[string]
	valid func(string) error
}

func (w word) parse(g *Guest, s string) error {
	*w.at(g) = s
	return w.valid(s)
}

func (w word) text(g *Guest) string    { return *w.at(g) }
func (w word) same(a, b *Guest) bool   { return *w.at(a) == *w.at(b) }
func (w word) content(g *Guest) string { return line(*w.at(g)) }
func (w word) read(g *Guest, t Tree, file string) error {
	*w.at(g) = t.Scalar(file)
	return nil
}

// hostname is a word; the default is the guest's name.
type hostname struct{ word }

func (h hostname) text(g *Guest) string  { return cmp.Or(g.Hostname, g.Name) }
func (h hostname) same(a, b *Guest) bool { return h.text(a) == h.text(b) }

// domain is a word, and the name of a directory.
type domain struct{ word }

func (d domain) read(g *Guest, t Tree, file string) error {
	_ = d.word.read(g, t, file)
	return checkDomain(g)
}

func checkDomain(g *Guest) error {
	if g.TrustDomain == "" {
		return nil
	}
	return validDomain(g.TrustDomain)
}

// presence is a boolean: true if its file exists.
type presence struct{ at[bool] }

func (p presence) parse(g *Guest, s string) error {
	*p.at(g) = s == "true" || s == allow
	return nil
}

func (p presence) text(g *Guest) string  { return allowed(*p.at(g)) }
func (p presence) same(a, b *Guest) bool { return *p.at(a) == *p.at(b) }
func (p presence) read(g *Guest, t Tree, file string) error {
	*p.at(g) = t.Has(file)
	return nil
}

func (p presence) content(g *Guest) string {
	if *p.at(g) {
		return Present
	}
	return ""
}

const allow, refuse = "allow", "refuse"

func allowed(yes bool) string {
	if yes {
		return allow
	}
	return refuse
}

// nesting has a default that depends on the init.
type nesting struct{ at[bool] }

func (nesting) byDefault(g *Guest) bool        { return len(g.Init.Command) == 0 }
func (nesting) text(g *Guest) string           { return allowed(!g.NoNesting) }
func (nesting) same(a, b *Guest) bool          { return a.NoNesting == b.NoNesting }
func (nesting) parse(g *Guest, s string) error { g.NoNesting = s != "true"; return nil }
func (n nesting) content(g *Guest) string {
	if !g.NoNesting == n.byDefault(g) {
		return ""
	}
	return line(strconv.FormatBool(!g.NoNesting))
}

func (n nesting) read(g *Guest, t Tree, file string) error {
	switch s := t.Scalar(file); s {
	case "":
		g.NoNesting = !n.byDefault(g)
	case "true", "false":
		g.NoNesting = s == "false"
	default:
		return fmt.Errorf("want true or false, have %q", s)
	}
	return nil
}

// LXCFS is a value of [Guest.Views].
const LXCFS = "lxcfs"

// views is "" for the host's.
type views struct{ at[string] }

func (v views) text(g *Guest) string    { return cmp.Or(*v.at(g), "host") }
func (v views) same(a, b *Guest) bool   { return *v.at(a) == *v.at(b) }
func (v views) content(g *Guest) string { return line(*v.at(g)) }
func (v views) parse(g *Guest, s string) error {
	switch s {
	case "", "host":
		*v.at(g) = ""
	case LXCFS:
		*v.at(g) = s
	default:
		return fmt.Errorf("want host or lxcfs, have %q", s)
	}
	return nil
}
func (v views) read(g *Guest, t Tree, file string) error { return v.parse(g, t.Scalar(file)) }

// number is an integer with bounds; 0: not set.
type number struct {
	at[int]
	first, last int
}

func (n number) parse(g *Guest, s string) (err error) {
	v, err := strconv.Atoi(s)
	if err != nil || s != strconv.Itoa(v) || v < n.first || v > n.last {
		return fmt.Errorf("want a number from %d to %d, have %q", n.first, n.last, s)
	}
	*n.at(g) = v
	return nil
}

func (n number) text(g *Guest) string    { return strconv.Itoa(*n.at(g)) }
func (n number) same(a, b *Guest) bool   { return *n.at(a) == *n.at(b) }
func (n number) content(g *Guest) string { return line(count(int64(*n.at(g)))) }
func (n number) read(g *Guest, t Tree, file string) error {
	s := t.Scalar(file)
	if s == "" {
		return nil
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < n.first || v > n.last {
		return fmt.Errorf("want a number from %d to %d", n.first, n.last)
	}
	*n.at(g) = v
	return nil
}

// list is a list whose order does not matter.
type list[T fmt.Stringer] struct {
	at[[]T]
	item func(string) (T, error)
}

func (l list[T]) parse(g *Guest, s string) error {
	v, err := l.item(s)
	if err != nil {
		return err
	}
	*l.at(g) = append(*l.at(g), v)
	return nil
}

func (l list[T]) text(g *Guest) string    { return set(*l.at(g)) }
func (l list[T]) same(a, b *Guest) bool   { return l.text(a) == l.text(b) }
func (l list[T]) content(g *Guest) string { return lines(texts(*l.at(g))) }
func (l list[T]) read(g *Guest, t Tree, file string) error {
	for _, s := range t.List(file) {
		if err := l.parse(g, s); err != nil {
			return err
		}
	}
	return nil
}

// limit is a file of the cgroup that holds a number or "max".
type limit struct {
	at[int64]
	inventory func(string) (int64, error)
	people    func(int64) string
	units     bool // the file may use units, as 512M
}

func (l limit) parse(g *Guest, s string) (err error) {
	*l.at(g), err = l.inventory(s)
	return err
}

func (l limit) text(g *Guest) string    { return l.people(*l.at(g)) }
func (l limit) same(a, b *Guest) bool   { return *l.at(a) == *l.at(b) }
func (l limit) content(g *Guest) string { return line(count(*l.at(g))) }
func (l limit) read(g *Guest, t Tree, file string) error {
	s := t.Scalar(file)
	if s == "" || s == "max" {
		return nil
	}
	n, err := parseSize(strings.ToUpper(s)) // the kernel's units are of 1024
	if err != nil || strings.Contains(s, ".") || !l.units && !isDigits(s) {
		return fmt.Errorf("want a number or max, not %q", s)
	}
	*l.at(g) = n
	return nil
}

// cores is a limit on processors; its file holds the quota per period.
type cores struct{ at[float64] }

const period = 100_000 // microseconds; the kernel's default

func (c cores) parse(g *Guest, s string) (err error) {
	n, err := strconv.ParseFloat(s, 64)
	// The kernel's smallest quota is 1 ms in each 100 ms, and it has at most
	// 8192 processors (CONFIG_NR_CPUS).
	if err != nil || strings.Trim(s, "0123456789.") != "" || n < 0.01 || n > 8192 {
		return fmt.Errorf("want a number of cores from 0.01 to 8192, as 1.5, have %q", s)
	}
	*c.at(g) = n
	return nil
}

func (c cores) text(g *Guest) string {
	if *c.at(g) == 0 {
		return ""
	}
	return strconv.FormatFloat(*c.at(g), 'g', -1, 64)
}

// same compares with the precision of the file: 0.29 may come back as 0.28999.
func (c cores) same(a, b *Guest) bool { return math.Abs(*c.at(a)-*c.at(b))*period < 1.5 }

func (c cores) content(g *Guest) string {
	if *c.at(g) <= 0 {
		return ""
	}
	return fmt.Sprintf("%d %d\n", int64(math.Round(*c.at(g)*period)), period)
}

func (c cores) read(g *Guest, t Tree, file string) error {
	quota, period, ok := strings.Cut(t.Scalar(file), " ")
	if !ok || quota == "max" {
		return nil
	}
	q, qerr := strconv.ParseFloat(quota, 64)
	p, perr := strconv.ParseFloat(strings.TrimSpace(period), 64)
	if qerr != nil || perr != nil || p <= 0 {
		return errors.New("want QUOTA PERIOD in microseconds")
	}
	*c.at(g) = q / p
	return nil
}

// several is a setting with more than one key or file, which inventory and host read
// with their own code.
type several[T any] struct {
	at[T]
	people func(*Guest) string
}

func (s several[T]) text(g *Guest) string            { return s.people(g) }
func (s several[T]) same(a, b *Guest) bool           { return s.people(a) == s.people(b) }
func (s several[T]) parse(*Guest, string) error      { return errors.ErrUnsupported }
func (s several[T]) read(*Guest, Tree, string) error { return errors.ErrUnsupported }
func (s several[T]) content(*Guest) string           { return "" }

// line returns the content of a file of one line.
func line(s string) string {
	if s == "" {
		return ""
	}
	return s + "\n"
}

func lines(list []string) string { return line(strings.Join(list, "\n")) }

// set writes a list whose order does not matter: hosts sort it by the names of their
// files.
func set[T fmt.Stringer](list []T) string {
	words := texts(list)
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}
