package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/depends"
)

// A Choice selects guests of the host, as util-vserver's tools for several guests do:
// by name, or by conditions that must all hold.
type Choice struct {
	Names            []string
	All              bool // without further conditions every guest
	Running, Stopped bool
	Marked, Unmarked bool     // apps/init/mark is there or not
	Marks            []string // one of these marks; "!MARK": not this one
}

// Filters reports whether guests are chosen by conditions.
func (c Choice) Filters() bool {
	return c.All || c.Running || c.Stopped || c.Marked || c.Unmarked || len(c.Marks) > 0
}

// Choose returns the names of the chosen guests, sorted or, if they are chosen by name,
// in the order given, each once. Conditions pass over guests with a file "disabled". That
// no guest is chosen is an error if none has a mark that is asked for.
func (h *Host) Choose(c Choice) ([]string, error) {
	if !c.Filters() {
		var names []string
		for _, name := range c.Names {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		return names, nil
	}
	all, err := h.allNames()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range all {
		ok, err := h.meets(name, c)
		if err != nil {
			return nil, err
		}
		if ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		err = h.knownMarks(all, c.Marks)
	}
	return names, err
}

// knownMarks returns an error for a mark that no guest has.
func (h *Host) knownMarks(all, marks []string) error {
	for _, mark := range marks {
		has := func(name string) bool { return h.Mark(name) == mark }
		if !strings.HasPrefix(mark, "!") && !slices.ContainsFunc(all, has) {
			return fmt.Errorf("no guest has the mark %q (apps/init/mark)", mark)
		}
	}
	return nil
}

func (h *Host) meets(name string, c Choice) (bool, error) {
	if _, err := os.Lstat(filepath.Join(h.config(name), "disabled")); err == nil {
		return false, nil
	}
	if mark := h.Mark(name); mark == "" && c.Marked || mark != "" && c.Unmarked || !inMarks(mark, c.Marks) {
		return false, nil
	}
	if !c.Running && !c.Stopped {
		return true, nil
	}
	on, err := h.running(name)
	return !(on && c.Stopped || !on && c.Running), err
}

// inMarks reports whether a mark is one of those wanted, and none that is not.
func inMarks(mark string, marks []string) bool {
	wanted, found := false, false
	for _, m := range marks {
		if not, ok := strings.CutPrefix(m, "!"); ok {
			if not == mark {
				return false
			}
			continue
		}
		wanted, found = true, found || m == mark
	}
	return found || !wanted
}

// Mark returns the mark of a guest (apps/init/mark); "" is none.
func (p Paths) Mark(name string) string {
	return openTree(p.config(name)).scalar("apps/init/mark")
}

// Dependencies returns what each guest of the host depends on (apps/init/depends). A
// file that cannot be read is an error: without it guests would start in a wrong order.
func (h *Host) Dependencies() (depends.Graph, error) {
	names, err := h.allNames()
	if err != nil {
		return nil, err
	}
	g := depends.Graph{}
	for _, name := range names {
		t := openTree(h.config(name))
		on := t.words("apps/init/depends")
		if t.err != nil {
			return nil, fmt.Errorf("guest %s: what it depends on: %w", name, t.err)
		}
		if len(on) > 0 {
			g[name] = on
		}
	}
	return g, nil
}

// Lacks returns warnings about guests that a guest depends on and that do not run, except
// those of but.
func (h *Host) Lacks(name string, but []string) (list []string) {
	for _, on := range openTree(h.config(name)).words("apps/init/depends") {
		if slices.Contains(but, on) {
			continue
		}
		switch running, err := h.Running(on); {
		case errors.Is(err, ErrNoGuest):
			list = append(list, fmt.Sprintf("it depends on %s, which is not there", on))
		case err == nil && !running:
			list = append(list, fmt.Sprintf("it depends on %s, which does not run (start-vservers %s starts both)", on, name))
		}
	}
	return list
}
