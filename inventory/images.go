package inventory

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var methods = []string{"debootstrap", "template"}

// image reads one entry of images.
func (b *builder) image(d *decoder, k text, v *yaml.Node) {
	image := &Image{Name: k.value, Pos: k.pos}
	var method, digest text
	var buildOn []text
	var args, packages []text
	var files []*fileSpec
	given := d.fields("image "+k.value, v, "a mapping, as {method: debootstrap, args: [-d, bookworm]}", []key{
		{"method", d.text(&method, "how it is made: "+orList(methods))},
		{"args", d.texts(&args, "a list of the method's arguments, as [-d, bookworm]")},
		{"packages", d.texts(&packages, "a list of packages, as [openssh-server]")},
		{"files", d.files(&files)},
		{"digest", d.text(&digest, "an image's ID, as vsfleet image list -o json shows it")},
		{"build_on", d.patterns(&buildOn)},
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
	if digest.ok() && !isDigest(digest.value) {
		d.add(digest.pos, "vsfleet image list -o json shows it", "digest %q: want sha256: and 64 hexadecimal digits", digest.value)
	}
	image.Method, image.Digest = method.value, digest.value
	if buildOn != nil {
		b.buildOn[image] = buildOn
	}
	for _, arg := range args {
		image.Args = append(image.Args, arg.value)
	}
	for _, p := range packages {
		// Packages are arguments of apt-get: "-o…" would be an option.
		if p.value == "" || p.value[0] == '-' || strings.ContainsAny(p.value, " \t\n") {
			d.add(p.pos, "", "packages: %q is no package", p.value)
		}
		image.Packages = append(image.Packages, p.value)
	}
	for _, f := range files {
		if f.restart || len(f.command) > 0 {
			d.add(f.pos, "give the file to the guests", "files: an image does not run, so it has no on_change")
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

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// resolveImages finds the hosts that may build images.
func (b *builder) resolveImages() {
	for _, image := range b.inv.Images {
		for _, pattern := range b.buildOn[image] {
			set, err := b.inv.hosts.match(pattern.value)
			if err != nil {
				b.failed(pattern.pos, err)
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
	has := func(letter string) bool {
		for _, arg := range image.Args {
			if arg == "--" {
				return false
			}
			if strings.HasPrefix(arg, letter) {
				return true
			}
		}
		return false
	}
	switch {
	case image.Method == "debootstrap" && !has("-d"):
		d.add(k.pos, "as in args: [-d, bookworm]", "image %q does not say which distribution", image.Name)
	case image.Method == "template" && !has("-t"):
		d.add(k.pos, "as in args: [-t, /srv/box.tar.zst]", "image %q does not say which archive", image.Name)
	case image.Method == "template" && len(packages) > 0:
		d.add(packages[0].pos, "put them into the archive, or use debootstrap", "image %q is a template, which takes no packages", image.Name)
	}
}
