package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/buildmethod"
)

var (
	methods = buildmethod.Names()
	updates = []string{UpdateBuild, UpdatePackages}
)

// image reads one entry of images.
func (b *builder) image(d *decoder, k text, v *yaml.Node) {
	image := &Image{Name: k.Value, Pos: k.Pos}
	var method, digest, update text
	var buildOn []text
	var args, packages []text
	var files []*fileSpec
	var shadowed []shadowRule
	given := d.Fields("image "+k.Value, v, "a mapping, as {method: debootstrap, args: [-d, bookworm]}", []key{
		{Name: "method", Read: d.Text(&method, "how it is made: "+orList(methods))},
		{Name: "args", Read: d.Texts(&args, "a list of the method's arguments, as [-d, bookworm]")},
		{Name: "packages", Read: d.Texts(&packages, "a list of packages, as [openssh-server]")},
		{Name: "files", Read: d.files(&files)},
		{Name: "digest", Read: d.Text(&digest, "an image's ID, as vsfleet image list -o json shows it")},
		{Name: "shadowed", Read: d.shadowed(&shadowed)},
		{Name: "update", Read: d.Text(&update, orList(updates))},
		{Name: "build_on", Read: d.patterns(&buildOn)},
	})
	if err := checkName(k.Value, maxName); err != nil {
		d.Add(k.Pos, "", "image %v", err)
		return
	}
	if first := b.inv.images[k.Value]; first != nil {
		d.Add(k.Pos, "", "image %q is defined twice, first at %s", k.Value, first.Pos)
		return
	}
	if _, named := given["method"]; given != nil && !named {
		d.Add(k.Pos, "give it method: "+orList(methods), "image %q has no method", k.Value)
	} else if err := unknownMethod(method.Value); method.OK() && err != nil {
		d.Failed(method.Pos, err)
	}
	if m, _ := buildmethod.Find(method.Value); m.OfHost && buildOn == nil {
		d.Add(k.Pos, "as in build_on: web01", "image %q copies the root of the host that builds it: name that host", k.Value)
	}
	if digest.OK() && !isDigest(digest.Value) {
		d.Add(digest.Pos, "vsfleet image list -o json shows it", "digest %q: want sha256: and 64 hexadecimal digits", digest.Value)
	}
	image.Method, image.Digest = method.Value, digest.Value
	image.Update = update.Value
	if err := oneOf("update", cmp.Or(update.Value, UpdateBuild), updates); err != nil {
		d.Failed(update.Pos, err)
	} else if image.Update == UpdatePackages && image.Method != "debootstrap" {
		d.Add(update.Pos, "leave it at build", "update: %s upgrades by apt what debootstrap made; image %q is made by %s", UpdatePackages, k.Value, image.Method)
	}
	if buildOn != nil {
		b.buildOn[image] = buildOn
	}
	for _, arg := range args {
		image.Args = append(image.Args, arg.Value)
	}
	for _, p := range packages {
		// Packages are arguments of apt-get: "-o…" would be an option.
		if p.Value == "" || p.Value[0] == '-' || strings.ContainsAny(p.Value, " \t\n") {
			d.Add(p.Pos, "", "packages: %q is no package", p.Value)
		}
		image.Packages = append(image.Packages, p.Value)
	}
	for _, f := range files {
		if f.restart || len(f.command) > 0 {
			d.Add(f.pos, "give the file to the guests", "files: an image does not run, so it has no on_change")
		}
	}
	image.Shadowed = (&resolver{builder: b}).shadowed(shadowed)
	for _, rule := range shadowed {
		if hasVariable(rule.path.Value + rule.do.Value) {
			d.Add(rule.path.Pos, "give the rule to the guests", "shadowed: a rule of an image has no variables")
		}
	}
	image.Files = (&resolver{builder: b}).resolveFiles(files, true)
	// What could not be read has been reported.
	if _, named := given["args"]; given != nil && named == (len(args) > 0) {
		d.imageArgs(k, image, packages)
	}
	b.inv.images[image.Name] = image
	b.inv.Images = append(b.inv.Images, image)
}

// unknownMethod returns an error unless there is such a method.
func unknownMethod(name string) *Error {
	for _, r := range buildmethod.Refused {
		if r.Name == name {
			return &Error{Msg: fmt.Sprintf("method: %s is not offered: %s", name, r.Why), Hint: "use " + r.Instead}
		}
	}
	return oneOf("method", name, methods)
}

// ImagesOf returns the images that the guests of a host are made of, each once.
func (inv *Inventory) ImagesOf(h *Host) []*Image {
	var list []*Image
	for _, g := range h.Guests {
		if image := inv.Image(g.Image); image != nil && g.State != Absent && !slices.Contains(list, image) {
			list = append(list, image)
		}
	}
	return list
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// resolveImages finds the hosts that may build images.
func (b *builder) resolveImages() {
	for _, image := range b.inv.Images {
		for _, pattern := range b.buildOn[image] {
			set, err := b.inv.hosts.match(pattern.Value)
			if err != nil {
				b.Failed(pattern.Pos, err)
				continue
			}
			for _, h := range b.inv.hosts.pick(set) {
				if !slices.Contains(image.Builders, h) {
					image.Builders = append(image.Builders, h)
				}
			}
		}
	}
}

// imageArgs reports arguments that the method lacks or does not have. All else is
// checked by the host that builds.
func (d *decoder) imageArgs(k text, image *Image, packages []text) {
	m, known := buildmethod.Find(image.Method)
	if !known {
		return
	}
	if m.Required != 0 && !hasRequired(image.Args, m) {
		d.Add(k.Pos, "as in args: "+m.Example, "image %q does not say %s", image.Name, m.Lacks)
	}
	if !m.Packages && len(packages) > 0 {
		d.Add(packages[0].Pos, "put them into what it copies, or use debootstrap or dnf", "image %q is built by %s, which takes no packages", image.Name, m.Name)
	}
}

// hasRequired reports whether the argument that a method requires is among its arguments.
func hasRequired(args []string, m buildmethod.Method) bool {
	for _, arg := range args {
		if arg == "--" {
			return false
		}
		if strings.HasPrefix(arg, "-"+string(m.Required)) || m.Or != 0 && strings.HasPrefix(arg, "-"+string(m.Or)) || m.Long != "" && strings.HasPrefix(arg, m.Long) {
			return true
		}
	}
	return false
}
