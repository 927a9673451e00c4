package inventory

import (
	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/setting"
)

// hooks reads the programs that the host runs when a guest starts and stops, as files
// of its configuration.
func (d *decoder) hooks(to *[]*fileSpec) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		d.Entries(name, v, "a mapping of moments, as {post-start: {source: announce.sh}}", func(k text, v *yaml.Node) {
			if err := oneOf("hooks", k.Value, setting.HookPhases); err != nil {
				d.Failed(k.Pos, err)
				return
			}
			f := &fileSpec{path: setting.HookFile(k.Value), pos: k.Pos, program: true}
			d.textOrFile(f, "hook", k, v, "its text, {source: FILE}, or {template: FILE}", []key{
				{Name: "source", Read: d.path(&f.source, "a file beside the inventory")},
				{Name: "template", Read: d.path(&f.template, "a file beside the inventory, with ${…} to be replaced")},
			})
			*to = append(*to, f)
		})
	}
}
