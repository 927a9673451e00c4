package playbooks

import (
	"errors"
	"testing"
)

func FuzzLoad(f *testing.F) {
	for _, text := range []string{
		"", "---", "- a: &a [*a]", "- play: p.yml", "- &p {hosts: all, steps: [{play: p.yml}]}", "- hosts: all\n  steps:\n    - exec: [a]\n      when: \"(((((\"\n",
		steps("- exec: \"${vars.name:-${x}\"\n  loop: {list: 'vars.users'}\n  until: result.rc == 0\n"),
		steps("- guest: {name: www, do: start}\n  register: r\n- assert: [r.changed, 'r.error matches \"(\"']\n"),
		steps("- copy: {to: /a, content: $${x}}\n  in: www\n  notify: h\n") + "  handlers: [{name: h, exec: [a]}]\n",
		"- hosts: \"${vars.a}${vars.b}\"\n  vars: {a: 0x1f, b: .nan, c: [1, {}]}\n  strategy: {serial: [1, 10%], pause: 1s}\n  steps: ~\n",
		"- hosts: all\n  steps: [{<<: {exec: [a]}, tags: x}]\n", "\xff\xfe- a", "- hosts: all\n  steps: [{exec: [a], when: 'all(1..1000000, all(1..1000000, true))'}]\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := load(text, "name=x")
		if err != nil {
			var all *Errors
			if !errors.As(err, &all) || len(all.All) == 0 {
				t.Fatalf("%#v", err)
			}
			for _, e := range all.All {
				if e.Msg == "" || e.Pos != (Position{}) && (e.Pos.File == "" || e.Pos.Line < 0) {
					t.Errorf("%+v", e)
				}
			}
			return
		}
		for _, p := range b.Plays {
			for _, st := range p.Steps {
				if st.Kind == nil || st.Pos.Line < 1 {
					t.Errorf("%+v", st)
				}
				st.Title(scope())
				st.Uses("r")
				for _, param := range st.Kind.Params {
					_, _ = st.Text(param.Name, scope())
				}
			}
		}
	})
}
