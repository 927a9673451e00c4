package inventory

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

var methods = []string{"debootstrap", "template"}

// image reads one entry of images.
func (b *builder) image(d *decoder, k text, v *yaml.Node) {
	image := &Image{Name: k.value, Pos: k.pos}
	var method text
	var args, packages []text
	given := d.fields("image "+k.value, v, "a mapping, as {method: debootstrap, args: [-d, bookworm]}", []key{
		{"method", d.text(&method, "how it is made: "+orList(methods))},
		{"args", d.texts(&args, "a list of the method's arguments, as [-d, bookworm]")},
		{"packages", d.texts(&packages, "a list of packages, as [openssh-server]")},
	})
	if err := checkName(k.value, maxName); err != nil {
		d.add(k.pos, "", "image %v", err)
		return
	}
	if first := b.inv.images[k.value]; first != nil {
		d.add(k.pos, "", "image %q is there twice, first at %s", k.value, first.Pos)
		return
	}
	if _, named := given["method"]; given != nil && !named {
		d.add(k.pos, "give it method: "+orList(methods), "image %q has no method", k.value)
	} else if err := oneOf("method", method.value, methods); method.ok() && err != nil {
		d.failed(method.pos, err)
	}
	image.Method = method.value
	for _, arg := range args {
		image.Args = append(image.Args, arg.value)
	}
	for _, p := range packages {
		// A package is an argument of apt-get: "-o…" would be an option.
		if p.value == "" || p.value[0] == '-' || strings.ContainsAny(p.value, " \t\n") {
			d.add(p.pos, "", "packages: %q is no package", p.value)
		}
		image.Packages = append(image.Packages, p.value)
	}
	b.inv.images[image.Name] = image
	b.inv.Images = append(b.inv.Images, image)
}
