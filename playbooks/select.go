package playbooks

import (
	"fmt"
	"slices"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// Selection says which steps of a playbook are taken.
type Selection struct {
	Tags, Skip []string // of steps; Tags nil: all but those tagged never
	StartAt    string   // name of the first step
}

// Select returns the playbook with the chosen steps only. Plays without steps are left
// out. Handlers stay: what notifies them is chosen.
func (b *Book) Select(sel Selection) (*Book, error) {
	if err := b.checkTags(slices.Concat(sel.Tags, sel.Skip)); err != nil {
		return nil, err
	}
	chosen := &Book{Name: b.Name}
	begun := sel.StartAt == ""
	var titles []string
	for _, p := range b.Plays {
		play := *p
		play.Steps = nil
		for _, st := range p.Steps {
			title := st.Name.raw
			titles = append(titles, title)
			begun = begun || title == sel.StartAt
			if begun && sel.wants(slices.Concat(p.Tags, st.Tags)) {
				play.Steps = append(play.Steps, st)
			}
		}
		if len(play.Steps) > 0 {
			chosen.Plays = append(chosen.Plays, &play)
		}
	}
	if !begun {
		return nil, &Error{Msg: fmt.Sprintf("--start-at: no step is called %q", sel.StartAt), Hint: yamlpos.DidYouMean(sel.StartAt, titles)}
	}
	if len(chosen.Plays) == 0 {
		return nil, &Error{Msg: "no step of the playbook is chosen", Hint: "vsfleet play PLAYBOOK --list shows steps with their tags"}
	}
	return chosen, chosen.complete()
}

func (sel Selection) wants(tags []string) bool {
	has := func(list []string) bool {
		return slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(list, tag) })
	}
	switch {
	case has(sel.Skip):
		return false
	case has(sel.Tags):
		return true
	case slices.Contains(tags, "never"):
		return false
	}
	return len(sel.Tags) == 0 || slices.Contains(sel.Tags, "all") || slices.Contains(tags, "always")
}

func (b *Book) checkTags(wanted []string) error {
	known := []string{"all", "always", "never"}
	for _, p := range b.Plays {
		known = append(known, p.Tags...)
		for _, st := range p.Steps {
			known = append(known, st.Tags...)
		}
	}
	for _, tag := range wanted {
		if !slices.Contains(known, tag) {
			return &Error{Msg: fmt.Sprintf("no step has the tag %q", tag), Hint: yamlpos.DidYouMean(tag, known)}
		}
	}
	return nil
}

// complete reports a step whose result a later one needs and that was not chosen.
func (b *Book) complete() error {
	for _, p := range b.Plays {
		registered := map[string]bool{}
		for _, st := range slices.Concat(p.Steps, p.Handlers) {
			for name := range st.names() {
				if !registered[name] && !slices.Contains(reserved, name) && name != st.Register {
					return &Error{Pos: st.Pos, Msg: fmt.Sprintf("the step needs the result %q of a step that is left out", name), Hint: "choose that one as well, by a tag of its own"}
				}
			}
			if st.Register != "" {
				registered[st.Register] = true
			}
		}
	}
	return nil
}

// names returns the names at the top of the expressions and texts of a step.
func (s *Step) names() map[string]bool {
	list := map[string]bool{}
	for _, e := range s.exprs() {
		for name := range e.uses {
			list[name] = true
		}
	}
	for _, t := range s.texts() {
		for _, variable := range t.variables() {
			list[first(variable)] = true
		}
	}
	return list
}
