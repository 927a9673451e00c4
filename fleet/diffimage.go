package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/imagediff"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/remote"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/fleet/versions"
	"github.com/vsfleet/vsfleet/internal/nearest"
	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// ErrNoSuchImage is the error of a name that no image has.
var ErrNoSuchImage = errors.New("no such image")

// ImageDiffer compares images that hosts have.
type ImageDiffer struct {
	Access    *Access
	Inventory *inventory.Inventory
	Known     versions.File
	Answers   Answers[api.State]
}

// A heldImage is an image and the hosts that have it.
type heldImage struct {
	api.Image
	arch  string
	hosts []*inventory.Host
}

// Diff compares two images, each named NAME, NAME@VERSION or by its ID or the beginning of
// that. A name alone is its current version. If to is empty, from is compared with the
// version before it.
func (d *ImageDiffer) Diff(ctx context.Context, from, to string) (report.ImageDiff, error) {
	if to == "" {
		var err error
		if from, to, err = d.before(from); err != nil {
			return report.ImageDiff{}, err
		}
	}
	olds, err := d.find(from)
	if err != nil {
		return report.ImageDiff{}, err
	}
	news, err := d.find(to)
	if err != nil {
		return report.ImageDiff{}, err
	}
	old, now := pair(olds, news)
	diff := report.ImageDiff{From: d.record(old), To: d.record(now)}
	a, end, err := d.side(ctx, old, &diff.From)
	if err != nil {
		return diff, err
	}
	defer end()
	b, end, err := d.side(ctx, now, &diff.To)
	if err != nil {
		return diff, err
	}
	defer end()
	return diff, imagediff.Compare(ctx, &diff, a, b)
}

// before returns the names of a version and the one before it.
func (d *ImageDiffer) before(text string) (from, to string, err error) {
	name, number, err := d.version(text)
	if err != nil {
		return "", "", err
	}
	list := d.Known.Images[name]
	if len(list) == 0 {
		return "", "", fmt.Errorf("%s is not a version of %s: name two images", text, versions.FileName)
	}
	if number == 0 {
		for _, v := range list {
			if now, _ := d.Known.Current(name, v.Key, v.Arch); now.Number > number {
				number = now.Number
			}
		}
	}
	before := 0
	for _, v := range list {
		if v.Number < number {
			before = max(before, v.Number)
		}
	}
	if before == 0 {
		return "", "", fmt.Errorf("image %s has no version before %d: name two images", name, number)
	}
	return versionName(name, before), versionName(name, number), nil
}

func versionName(name string, number int) string { return name + "@" + strconv.Itoa(number) }

// version reads NAME@VERSION; of what has no @, the version is 0.
func (d *ImageDiffer) version(text string) (name string, number int, err error) {
	name, after, is := strings.Cut(text, "@")
	if !is {
		return name, 0, nil
	}
	number, err = strconv.Atoi(after)
	list := d.Known.Images[name]
	if err != nil || number < 1 || !slices.ContainsFunc(list, func(v versions.Version) bool { return v.Number == number }) {
		if list == nil {
			return "", 0, d.unknown(name)
		}
		return "", 0, fmt.Errorf("%w: %s has no version %q; vsfleet image versions %[2]s lists them", ErrNoSuchImage, name, after)
	}
	return name, number, nil
}

// find returns the images that a text names and a host has: one for each architecture.
func (d *ImageDiffer) find(text string) ([]*heldImage, error) {
	name, number, err := d.version(text)
	if err != nil {
		return nil, err
	}
	image := d.Inventory.Image(name)
	digest := strings.TrimPrefix(text, "sha256:")
	list := d.held(func(state api.State, i api.Image) bool {
		switch {
		case number > 0:
			_, v, ok := d.Known.Find(i.ID)
			return ok && v.Number == number && slices.ContainsFunc(d.Known.Images[name], func(v versions.Version) bool { return v.ID == i.ID })
		case image != nil:
			chosen, ok := plan.Chosen(image, d.Access.Versions, state)
			return ok && chosen.ID == i.ID
		}
		return i.Spec.Name == text || len(digest) >= 4 && strings.HasPrefix(i.ID, "sha256:"+digest)
	})
	switch {
	case len(list) == 0 && (number > 0 || image != nil):
		return nil, errors.Join(fmt.Errorf("none of these hosts has image %s any more, or yet (vsfleet image list)", text), d.failures())
	case len(list) == 0:
		return nil, errors.Join(d.unknown(text), d.failures())
	}
	arches := map[string]int{}
	for _, i := range list {
		if arches[i.arch]++; arches[i.arch] > 1 {
			return nil, fmt.Errorf("%s may be several images: %s", text, imageNames(list))
		}
	}
	return list, nil
}

// held returns the images of hosts that wanted chooses, that which most hosts have first.
func (d *ImageDiffer) held(wanted func(api.State, api.Image) bool) []*heldImage {
	found := map[string]*heldImage{}
	for _, answer := range d.Answers {
		if answer.Outcome != outcome.OK {
			continue
		}
		for _, i := range answer.Value.Images {
			if !wanted(answer.Value, i) {
				continue
			}
			if found[i.ID] == nil {
				found[i.ID] = &heldImage{Image: i, arch: answer.Value.Host.Arch}
			}
			if h := found[i.ID]; !slices.Contains(h.hosts, answer.Host) {
				h.hosts = append(h.hosts, answer.Host)
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *heldImage) int {
		return cmp.Or(len(b.hosts)-len(a.hosts), strings.Compare(a.ID, b.ID))
	})
}

func imageNames(list []*heldImage) string {
	var parts []string
	for _, i := range list {
		var hosts []string
		for _, h := range i.hosts {
			hosts = append(hosts, h.Name)
		}
		parts = append(parts, strings.TrimPrefix(i.ID, "sha256:")[:12]+" on "+nodeset.Fold(hosts))
	}
	return strings.Join(parts, ", ")
}

// unknown is the error of a text that names no image.
func (d *ImageDiffer) unknown(text string) error {
	known := slices.Collect(maps.Keys(d.Known.Images))
	for _, i := range d.Inventory.Images {
		known = append(known, i.Name)
	}
	err := fmt.Errorf("%w: %q; name one as NAME, NAME@VERSION or by the beginning of its ID", ErrNoSuchImage, text)
	if near := nearest.Word(text, known); near != "" {
		err = fmt.Errorf("%w (did you mean %s?)", err, near)
	}
	return err
}

// failures returns why hosts did not answer.
func (d *ImageDiffer) failures() error {
	for _, answer := range d.Answers {
		if answer.Err != nil {
			return answer.Err
		}
	}
	return nil
}

// pair chooses two images of one architecture, if there are such, and those that most hosts
// have.
func pair(olds, news []*heldImage) (old, now *heldImage) {
	old, now = olds[0], news[0]
	most := 0
	for _, a := range olds {
		for _, b := range news {
			if n := len(a.hosts) + len(b.hosts); a.arch == b.arch && n > most {
				old, now, most = a, b, n
			}
		}
	}
	return old, now
}

func (d *ImageDiffer) record(i *heldImage) report.ComparedImage {
	c := report.ComparedImage{Name: i.Spec.Name, ID: i.ID, Arch: i.arch, Bytes: i.Bytes, Files: i.Files}
	if name, v, ok := d.Known.Find(i.ID); ok {
		c.Name, c.Version = name, v.Number
	}
	return c
}

// side connects to one of the hosts that have an image, to read it, and notes it in the
// record.
func (d *ImageDiffer) side(ctx context.Context, i *heldImage, record *report.ComparedImage) (side imagediff.Image, end func(), err error) {
	for _, h := range i.hosts {
		var conn *transport.Conn
		if conn, err = d.Access.Dial(ctx, h); err != nil {
			continue
		}
		record.Host = h.Name
		host := remote.New(conn)
		return imagediff.Image{ID: i.ID, Read: func(ctx context.Context, path string, w io.Writer) error {
			return host.ExportImage(ctx, api.ExportImage{ID: i.ID, Manifest: path == "", File: path}, w)
		}}, func() { conn.Close() }, nil
	}
	return side, nil, err
}
