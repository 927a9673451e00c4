package inventory

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// credentials reads the credentials of a guest: secret files of setting.Credentials,
// which its systemd reads when it starts. No error shows a line with one.
func (d *decoder) credentials(to *[]*fileSpec) func(string, *yaml.Node) {
	return func(name string, v *yaml.Node) {
		d.Entries(name, v, "a mapping of names, as {db.password: {source: db.age}}", func(k text, v *yaml.Node) {
			d.Hide(k.Pos)
			hideLines(d, yamlpos.Target(v))
			if err := setting.CheckCredential(k.Value); err != nil {
				d.Add(k.Pos, "", "credentials: %s: %v", yamlpos.Short(k.Value), err)
				return
			}
			f := &fileSpec{path: setting.Credentials + "/" + k.Value, pos: k.Pos, restart: true,
				mode: text{Value: "0600", Pos: k.Pos}, secret: given[bool]{Value: true, Pos: k.Pos}}
			d.textOrFile(f, "credential", k, v, "its text, or {source: FILE}", []key{{Name: "source", Read: d.path(&f.source, "a file beside the inventory")}})
			*to = append(*to, f)
		})
	}
}

// textOrFile reads the content of a file of which only that can be given: its text, or
// a mapping that names where it is.
func (d *decoder) textOrFile(f *fileSpec, kind string, k text, v *yaml.Node, want string, from []key) {
	n := yamlpos.Target(v)
	if n.Kind == yaml.ScalarNode && !yamlpos.IsNull(n) {
		d.fileContent(f, k.Value, n)
		return
	}
	d.Fields(kind+" "+k.Value, v, want, from)
	if given := f.source.OK() != f.template.OK(); yamlpos.IsNull(n) || n.Kind == yaml.MappingNode && !given {
		d.Add(k.Pos, "", "%ss: %s: want %s", kind, k.Value, want)
	}
}

// hideLines keeps the lines of a value out of errors. A break may have become a blank.
func hideLines(d *decoder, v *yaml.Node) {
	at := d.At(v)
	for range strings.Count(v.Value, "\n") + strings.Count(v.Value, " ") + 2 {
		d.Hide(at)
		at.Line++
	}
	for _, n := range v.Content {
		hideLines(d, n)
	}
}

// boundCredentials refuses more than a guest's systemd would read.
func (r *resolver) boundCredentials(files []File) {
	total := 0
	for i := range files {
		f := &files[i]
		if !strings.HasPrefix(f.Path, setting.Credentials+"/") {
			continue
		}
		if total += f.size(); total > setting.MaxCredentials {
			r.fail(f.Pos, "give it what is large as files", "credentials: more than %d MiB altogether, which is what systemd reads", setting.MaxCredentials>>20)
			return
		}
	}
}
