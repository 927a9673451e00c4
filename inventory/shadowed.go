package inventory

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// shadowRule decides about files of a guest's own that hide what its image changes.
type shadowRule struct{ path, do text }

const wantShadowed = "a list of rules, as [{path: /usr/lib/*, do: reset}]"

var shadowActions = []string{setting.ShadowRebase, setting.ShadowReset, setting.ShadowKeep}

// shadowed reads a list of rules.
func (d *decoder) shadowed(to *[]shadowRule) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		if v = yamlpos.Target(v); v.Kind != yaml.SequenceNode {
			d.Wrong(name, v, wantShadowed)
			return
		}
		for _, item := range v.Content {
			var r shadowRule
			if d.Fields("a rule of "+name, item, "a mapping, as {path: /usr/lib/*, do: reset}", []key{
				{Name: "path", Read: d.Text(&r.path, "the pattern of a path in the guest")},
				{Name: "do", Read: d.Text(&r.do, orList(shadowActions))},
			}) == nil {
				continue
			}
			if !r.path.OK() || !r.do.OK() {
				d.Add(d.At(item), "as {path: /usr/lib/*, do: reset}", "%s: a rule has a path, and what to do", name)
				continue
			}
			*to = append(*to, r)
		}
	}
}

// shadowed returns rules as a host has them.
func (r *resolver) shadowed(rules []shadowRule) string {
	var words []string
	for _, rule := range rules {
		var do, pattern string
		r.value(rule.do, "shadowed", func(s string) error {
			do = s
			if err := oneOf("shadowed", s, shadowActions); err != nil {
				return err
			}
			return nil
		})
		r.value(rule.path, "shadowed", func(s string) error {
			pattern = s
			return checkShadowed(do, s)
		})
		words = append(words, do, pattern)
	}
	return strings.Join(words, " ")
}

func checkShadowed(do, pattern string) error {
	_, err := path.Match(pattern, "")
	switch {
	case err != nil || !strings.HasPrefix(pattern, "/") || path.Clean(pattern) != pattern || pattern == "/":
		return fmt.Errorf("want the pattern of a path from the guest's root, as /usr/lib/*, have %q", pattern)
	case strings.ContainsFunc(pattern, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return fmt.Errorf("%q: a pattern has no blanks; ? matches one", pattern)
	case do == setting.ShadowRebase && !slices.Contains(setting.RebasedFiles, pattern):
		return &Error{
			Msg:  fmt.Sprintf("shadowed: %s cannot be rebased, only databases of packages can: %s", pattern, strings.Join(setting.RebasedFiles, ", ")),
			Hint: "use reset or keep",
		}
	}
	return nil
}
