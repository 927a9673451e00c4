package setting

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// validMark returns an error for what cannot be a mark: it is a part of a unit's name.
func validMark(s string) error {
	if !isName(s) {
		return fmt.Errorf("want true, false or a mark of letters, digits, _ . -, have %q", s)
	}
	return nil
}

// validDomain returns an error for what cannot be a trust domain: it is a directory's name.
func validDomain(s string) error {
	if !isName(s) {
		return fmt.Errorf("want a name of letters, digits, _ . -, have %q", s)
	}
	return nil
}

// isName reports whether s can be a guest's name, a mark or a trust domain.
func isName(s string) bool {
	letter := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-'
	}
	return s != "" && len(s) <= 63 && strings.IndexByte("_.-", s[0]) < 0 && !strings.ContainsFunc(s, func(c rune) bool { return !letter(c) })
}

// autostart is true, false, or a mark. A file "disabled" keeps a guest from starting at
// boot, whatever its mark.
type autostart struct{ word }

func (a autostart) parse(g *Guest, s string) error {
	switch s {
	case "true":
		s = DefaultMark
	case "false":
		*a.at(g) = ""
		return nil
	}
	return a.word.parse(g, s)
}

func (a autostart) read(g *Guest, t Tree, file string) error {
	if t.Has(Disabled) {
		return nil
	}
	*a.at(g) = t.Scalar(file)
	if *a.at(g) == "" {
		return nil
	}
	return a.valid(*a.at(g))
}

// Disabled is the file that keeps a guest from starting at boot.
const Disabled = "disabled"

// names is a list of guests, of which each line of a file may have several.
type names struct{ at[[]string] }

func (n names) parse(g *Guest, s string) error {
	if !isName(s) {
		return fmt.Errorf("want names of guests, have %q", s)
	}
	if s == g.Name {
		return errors.New("a guest cannot depend on itself")
	}
	if !slices.Contains(*n.at(g), s) {
		*n.at(g) = append(*n.at(g), s)
	}
	return nil
}

func (n names) text(g *Guest) string {
	sorted := slices.Clone(*n.at(g))
	slices.Sort(sorted)
	return strings.Join(sorted, ", ")
}

func (n names) same(a, b *Guest) bool   { return n.text(a) == n.text(b) }
func (n names) content(g *Guest) string { return lines(*n.at(g)) }
func (n names) read(g *Guest, t Tree, file string) error {
	for _, line := range t.List(file) {
		for name := range strings.FieldsFuncSeq(line, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
			if err := n.parse(g, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// ParseRestart reads no, on-failure or always; behind the latter two "5/10m" may bound
// the starts: 5 of them within 10 minutes.
func ParseRestart(s string) (r Restart, err error) {
	wrong := fmt.Errorf("want no, on-failure or always, or with a bound on-failure:5/10m (5 starts within 10 minutes), have %q", s)
	policy, bound, bounded := strings.Cut(s, ":")
	switch policy {
	case OnFailure, Always:
		r.Policy = policy
	case Never:
		if bounded {
			return r, wrong
		}
	default:
		return r, wrong
	}
	if !bounded {
		return r, nil
	}
	starts, within, ok := strings.Cut(bound, "/")
	r.Starts, err = strconv.Atoi(starts)
	if err != nil || !ok || r.Starts < 1 || r.Starts > 1000 {
		return Restart{}, wrong
	}
	r.Within, err = time.ParseDuration(within)
	if err != nil || r.Within < time.Second || r.Within > 7*24*time.Hour || r.Within%time.Second != 0 {
		return Restart{}, wrong
	}
	return r, nil
}

// String returns what ParseRestart reads; "" is the default.
func (r Restart) String() string {
	if r.Policy == "" || r.Starts == 0 {
		return r.Policy
	}
	within := r.Within.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(within, zero) {
			within = within[:len(within)-2]
		}
	}
	return fmt.Sprintf("%s:%d/%s", r.Policy, r.Starts, within)
}

type restart struct{ at[Restart] }

func (r restart) parse(g *Guest, s string) (err error) {
	*r.at(g), err = ParseRestart(s)
	return err
}

func (r restart) text(g *Guest) string {
	if s := r.at(g).String(); s != "" {
		return s
	}
	return Never
}
func (r restart) same(a, b *Guest) bool   { return *r.at(a) == *r.at(b) }
func (r restart) content(g *Guest) string { return line(r.at(g).String()) }
func (r restart) read(g *Guest, t Tree, file string) error {
	s := t.Scalar(file)
	if s == "" {
		return nil
	}
	return r.parse(g, s)
}
