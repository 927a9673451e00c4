package inventory

import (
	"cmp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// mountSpec is a mount or a volume as written in its file.
type mountSpec struct {
	pos                         Position
	name                        string // in errors
	kind, source, target, idmap text
	options                     []text
	volume                      string // its name; "": a mount
	shared                      given[bool]
}

const (
	wantMounts  = "a list of mounts, as [{source: /srv/www, target: /var/www}]"
	wantVolumes = "a mapping of names to places, as {data: /var/lib/postgresql}"
)

// mounts reads a list of mounts.
func (d *decoder) mounts(to *[]*mountSpec) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		if v = yamlpos.Target(v); v.Kind != yaml.SequenceNode {
			d.Wrong(name, v, wantMounts)
			return
		}
		for _, item := range v.Content {
			m := &mountSpec{pos: d.At(item), name: name}
			if d.Fields("a mount", item, "a mapping, as {source: /srv/www, target: /var/www}", []key{
				{Name: "type", Read: d.Text(&m.kind, "bind, rbind or tmpfs")},
				{Name: "source", Read: d.Text(&m.source, "a path of the host")},
				{Name: "target", Read: d.Text(&m.target, "a path in the guest")},
				{Name: "options", Read: d.Texts(&m.options, "a list of options, as [rw, nosuid]")},
				{Name: "idmap", Read: d.Text(&m.idmap, "ids, as uids=1000-33-1;gids=1000-33-1")},
			}) != nil {
				*to = append(*to, m)
			}
		}
	}
}

// volumes reads a mapping of names to places.
func (d *decoder) volumes(to *[]*mountSpec) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		d.Entries(name, v, wantVolumes, func(k text, v *yaml.Node) {
			m := &mountSpec{pos: k.Pos, name: name, volume: k.Value}
			if v = yamlpos.Target(v); v.Kind == yaml.MappingNode {
				d.Fields("volume "+k.Value, v, "a place, or {target: /srv, shared: true}", []key{
					{Name: "target", Read: d.Text(&m.target, "a path in the guest")},
					{Name: "shared", Read: d.Flag(&m.shared)},
				})
			} else {
				d.Text(&m.target, "a path in the guest")(name, v)
			}
			*to = append(*to, m)
		})
	}
}

// mounts resolves mounts and volumes. Those of the host are read-only if the file does
// not say otherwise.
func (r *resolver) mounts(specs []*mountSpec) (list []setting.Mount) {
	for _, spec := range specs {
		known := true
		read := func(t text, name string, to *string) {
			known = known && (r.scope.host != nil || !hasVariable(t.Value))
			r.value(t, name, func(s string) error { *to = s; return nil })
		}
		m := setting.Mount{Type: setting.Volume, Source: spec.volume}
		if spec.volume == "" {
			m.Type = setting.Bind
			read(spec.kind, "type", &m.Type)
		} else if spec.shared.Value {
			m.Options = append(m.Options, setting.SharedVolume)
		}
		read(spec.source, "source", &m.Source)
		read(spec.target, "target", &m.Target)
		for _, o := range spec.options {
			var s string
			read(o, "options", &s)
			m.Options = append(m.Options, s)
		}
		var idmap string
		if read(spec.idmap, "idmap", &idmap); idmap != "" {
			m.Options = append(m.Options, setting.IDMap+"="+idmap)
		}
		if host := m.Type == setting.Bind || m.Type == setting.RBind; host && !slices.Contains(m.Options, "rw") {
			m.Options = append(m.Options, "ro")
		}
		if !known || r.failed {
			continue
		}
		valid, err := setting.NewMount(m)
		if err != nil {
			r.failed = true
			// At what is wrong, if that is a value of its own.
			at := map[string]text{"source": spec.source, "target": spec.target, "type": spec.kind, "idmap": spec.idmap}
			key, _, _ := strings.Cut(err.Error(), ":")
			if len(spec.options) > 0 {
				at["options"] = spec.options[0]
			}
			pos := at[key].Pos
			if !at[key].OK() {
				pos = spec.pos
			}
			r.Failed(pos, &Error{Msg: spec.name + ": " + err.Error()})
			continue
		}
		list = append(list, valid)
	}
	slices.SortStableFunc(list, func(a, b setting.Mount) int {
		if a.Type != setting.Volume {
			return 0
		}
		return cmp.Compare(a.Source, b.Source)
	})
	return list
}
