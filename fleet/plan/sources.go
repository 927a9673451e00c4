package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/nodeset"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Host is a host with its plan, as [Sources] needs it.
type Host struct {
	Inventory *inventory.Host
	State     api.State
	Plan      Plan
}

func (h Host) name() string { return h.Inventory.Name }

// space ranks hosts by their free disk space; hosts with enough rank the same.
func (h Host) space() int64 {
	if free := h.State.Host.FreeBytes; free > 0 {
		return min(free, buildSpace)
	}
	return buildSpace // unknown
}

// buildSpace is the free disk space with which a host is among the first to build.
const buildSpace = 2 << 30

// Spec converts an image of the inventory to what is sent to a host.
func Spec(image *inventory.Image) api.ImageSpec {
	files, _ := sentFiles(image.Files) // fails for secrets, which no image holds
	return api.ImageSpec{Name: image.Name, Method: image.Method, Args: image.Args, Packages: image.Packages, Files: files}
}

// need is an image as the inventory wants it.
type need struct {
	key      string // identifies it; equal needs may have images of different names
	spec     api.ImageSpec
	specKey  string
	digest   string // the ID, where only that one will do
	version  bool   // digest is that of the current version
	anew     bool   // to be built even where there is one
	last     string // anew: the ID of the version whose packages are upgraded; empty: it is built
	builders []*inventory.Host
}

func needOf(image *inventory.Image, versions Versions, arch string) need {
	spec := Spec(image)
	n := need{spec: spec, specKey: spec.Key(), digest: image.Digest, builders: image.Builders}
	if n.digest == "" && versions != nil {
		n.digest = versions.Current(image.Name, n.specKey, arch)
		n.version = n.digest != ""
	}
	n.key = n.specKey + n.digest
	return n
}

// fits reports whether an image will do.
func (n need) fits(image api.Image) bool {
	if n.digest != "" {
		return image.ID == n.digest
	}
	return image.Key == n.specKey
}

// choose returns the ID of an image among have that fits, or "". A guest keeps
// its own image if that fits.
func (n need) choose(have []api.Image, now *api.GuestState) string {
	id := ""
	for _, image := range have { // newest first
		switch {
		case !n.fits(image):
		case now != nil && now.Image == image.ID:
			return image.ID
		case id == "":
			id = image.ID
		}
	}
	return id
}

// Image is an image that hosts lack, and where it comes from. Hosts are given by
// their names. Hosts of different architectures lack different images.
type Image struct {
	Key      string // as in Plan.Waits
	Spec     api.ImageSpec
	Digest   string   // the ID that it must have; empty: any
	ID       string   // of what the holders have; empty: nobody has it
	Holders  []string // have it, all the same one
	Builders []string // may build it if nobody has it, in that order
	Lack     []string // need it and do not have it
	Err      error    // nobody can provide it
	// Bases are, by host that lacks the image, what it has in its place: the difference to
	// that is enough.
	Bases map[string]Base

	need need
	arch string
}

// Sources returns the images that hosts lack and decides where each comes from:
// from one of the hosts that has it, else from one of the others, which are the
// rest of the inventory, else from a host that builds it.
func Sources(hosts, others []Host, versions Versions) []Image {
	var images []Image
	for _, h := range hosts {
		for _, n := range h.Plan.images {
			key, arch := n.key, h.State.Host.Arch
			i := slices.IndexFunc(images, func(m Image) bool { return m.Key == key && m.arch == arch })
			if i < 0 {
				i = len(images)
				images = append(images, Image{Key: key, Spec: n.spec, Digest: n.digest, need: n, arch: arch})
			}
			images[i].Lack = append(images[i].Lack, h.name())
		}
	}
	builds := map[string]int{}
	for i := range images {
		m := &images[i]
		if !m.Anew() {
			m.hold(hosts)
		}
		if m.Wanted() {
			m.hold(others)
		}
		if m.ID != "" {
			m.chooseBases(hosts, others, m.Holders, versions)
			continue
		}
		if m.need.version {
			m.Err = fmt.Errorf("image %s: no host has its current version %s any more: build another with vsfleet image update %[1]s", m.Spec.Name, short(m.Digest))
			continue
		}
		m.Builders = m.able(hosts, builds)
		if len(m.Builders) > 0 {
			builds[m.Builders[0]]++
			m.chooseBases(hosts, others, m.Builders[:1], versions)
		} else if m.need.last != "" {
			m.Err = fmt.Errorf("image %s: none of the hosts that may build it has its version %s, whose packages are to be upgraded: bring it to one with vsfleet image push, or give the image update: build", m.Spec.Name, short(m.need.last))
		} else {
			m.Err = fmt.Errorf("image %s: none of the hosts that may build it (build_on) is among those of this run: take one of them into -l", m.Spec.Name)
		}
	}
	return images
}

// Wanted reports whether a host is still to be found that has the image.
func (m Image) Wanted() bool { return m.ID == "" && !m.need.anew }

// Last returns the ID of the image whose packages are upgraded in place of a build; "": it is
// built.
func (m Image) Last() string { return m.need.last }

// Anew reports whether the image is to be built, whoever has one of its spec.
func (m Image) Anew() bool { return m.need.anew }

// HeldBy reports whether a host has an image that will do.
func (m Image) HeldBy(host api.State) bool {
	return host.Host.Arch == m.arch && m.need.choose(host.Images, nil) != ""
}

// Builders returns the hosts that are the only ones which may build an image that
// hosts lack.
func Builders(hosts []Host) []*inventory.Host {
	var list []*inventory.Host
	for _, h := range hosts {
		for _, n := range h.Plan.images {
			for _, b := range n.builders {
				if !slices.Contains(list, b) {
					list = append(list, b)
				}
			}
		}
	}
	return list
}

// hold sets the holders of the image. If hosts have different images of the same
// spec, the one that most of them have is taken: a single host that claims to
// have it cannot supply the others with something else.
func (m *Image) hold(hosts []Host) {
	have := map[string][]string{}
	for _, h := range hosts {
		if h.State.Host.Arch != m.arch {
			continue
		}
		if id := m.need.choose(h.State.Images, nil); id != "" {
			have[id] = append(have[id], h.name())
			if len(have[id]) > len(m.Holders) {
				m.ID, m.Holders = id, have[id]
			}
		}
	}
}

// able returns the hosts that can build the image as far as is known: first those
// with more space, then those with fewer images to build. If none can, it returns
// all that may: the one that tries reports what it lacks.
func (m *Image) able(hosts []Host, builds map[string]int) []string {
	among := slices.DeleteFunc(slices.Clone(hosts), func(h Host) bool {
		if m.need.last != "" && !slices.ContainsFunc(h.State.Images, func(i api.Image) bool { return i.ID == m.need.last }) {
			return true
		}
		if m.need.builders == nil {
			return !slices.Contains(m.Lack, h.name())
		}
		return !slices.Contains(m.need.builders, h.Inventory) || h.State.Host.Arch != m.arch
	})
	able := slices.DeleteFunc(slices.Clone(among), func(h Host) bool {
		return m.need.last == "" && !slices.Contains(h.State.Host.Methods, m.Spec.Method)
	})
	if len(able) == 0 {
		able = among
	}
	slices.SortStableFunc(able, func(a, b Host) int {
		return cmp.Or(cmp.Compare(b.space(), a.space()), cmp.Compare(builds[a.name()], builds[b.name()]))
	})
	names := make([]string, len(able))
	for i, h := range able {
		names[i] = h.name()
	}
	return names
}

// Provide returns the plan of a host with the steps for images before all others.
// Guests whose image nobody can provide are refused.
func (p Plan) Provide(host string, images []Image) Plan {
	var first []api.Step
	for _, m := range images {
		lacks := slices.Contains(m.Lack, host)
		if lacks && m.Err != nil {
			p.refuseWaiting(m)
		}
		kind, why := api.StepImport, ""
		switch {
		case m.ID != "":
			why = fmt.Sprintf("%s has it (%s)", m.Holders[0], short(m.ID))
		case m.Err != nil:
			why = "it cannot be built"
		case m.builtBy(host):
			kind, lacks, why = api.StepBuildImage, true, "no host has it"
			switch {
			case m.need.last != "":
				why = "its next version, by newer packages in a copy of " + short(m.need.last)
			case m.Anew():
				why = "its next version"
			case m.Digest != "":
				why += ", and it has to become " + short(m.Digest)
			}
		default:
			why = m.Builders[0] + " builds it"
		}
		if base, has := m.Bases[host]; has && kind == api.StepImport {
			why += ", as the difference to " + base.Name
		}
		if lacks {
			first = append(first, api.Step{Kind: kind, Name: m.Spec.Name, Image: &m.Spec, Anew: m.Anew() && kind == api.StepBuildImage, Upgrade: m.upgradedBy(kind), Why: why})
		}
	}
	slices.Reverse(first)
	p.Steps = append(first, p.Steps...)
	p.Cuts = slices.Clone(p.Cuts)
	for i := range p.Cuts {
		p.Cuts[i] += len(first)
	}
	return p
}

func (m Image) upgradedBy(kind api.StepKind) string {
	if kind != api.StepBuildImage {
		return ""
	}
	return m.need.last
}

func (p *Plan) refuseWaiting(m Image) {
	p.Refused = slices.Clone(p.Refused)
	for guest, key := range p.Waits {
		if key == m.Key {
			p.refuse(guest, m.Err)
		}
	}
	slices.SortFunc(p.Refused, func(a, b Refusal) int { return strings.Compare(a.Guest, b.Guest) })
}

// Step returns the index of the step by which a host imports or builds an image,
// or -1.
func (p Plan) Step(host string, m Image) int {
	if !slices.Contains(m.Lack, host) && !m.builtBy(host) {
		return -1 // a step of that name is about the image for another architecture
	}
	return slices.IndexFunc(p.Steps, func(s api.Step) bool { return ForImage(s) && s.Name == m.Spec.Name })
}

// builtBy reports whether a host is the one that has to build the image.
func (m Image) builtBy(host string) bool {
	return m.ID == "" && len(m.Builders) > 0 && m.Builders[0] == host
}

// Give returns the plan with the ID of an image in the steps that waited for it.
func (p Plan) Give(key, id string) Plan {
	p.Steps = slices.Clone(p.Steps)
	for i, s := range p.Steps {
		if s.Guest != nil && p.Waits[s.Name] == key {
			g := *s.Guest
			g.Image = id
			p.Steps[i].Guest = &g
		}
	}
	return p
}

// Bring returns the plan with images that the host should have, whether or not a guest
// needs them.
func (p Plan) Bring(images []*inventory.Image, versions Versions, state api.State) Plan {
	for _, image := range images {
		wanted := needOf(image, versions, state.Host.Arch)
		if wanted.choose(state.Images, nil) == "" && !slices.ContainsFunc(p.images, func(n need) bool { return n.key == wanted.key }) {
			p.images = append(p.images, wanted)
		}
	}
	return p
}

// Renew returns a plan by which a host gets the next version of an image.
func Renew(image *inventory.Image, versions Versions, arch string) Plan {
	n := needOf(image, nil, "")
	n.anew, n.key = true, n.key+" anew"
	if image.Update == inventory.UpdatePackages && versions != nil {
		n.last = versions.Current(image.Name, n.specKey, arch) // the first version is built
	}
	return Plan{images: []need{n}}
}

// Wanted returns the ID of the image that each guest of a host should have: of those in the
// inventory that of the current version, of the others that which they have.
func Wanted(host *inventory.Host, state api.State, rules Rules) map[string]string {
	wanted := map[string]string{}
	for i, g := range state.Guests {
		wanted[g.Name] = g.Image
		at := slices.IndexFunc(host.Guests, func(w *inventory.Guest) bool { return w.Name == g.Name })
		if at < 0 {
			continue
		}
		image := rules.Image(host.Guests[at].Image)
		if image == nil {
			continue
		}
		n := needOf(image, rules.Versions, state.Host.Arch)
		wanted[g.Name] = cmp.Or(n.choose(state.Images, &state.Guests[i]), n.digest, g.Image)
	}
	return wanted
}

// Chosen returns the image of a host that its guests of an image get.
func Chosen(image *inventory.Image, versions Versions, state api.State) (api.Image, bool) {
	id := needOf(image, versions, state.Host.Arch).choose(state.Images, nil)
	i := slices.IndexFunc(state.Images, func(i api.Image) bool { return i.ID == id })
	if i < 0 {
		return api.Image{}, false
	}
	return state.Images[i], true
}

// Used is an image that guests of hosts have, and a host of theirs.
type Used struct {
	Image api.Image
	Arch  string
	Host  string
}

// MostUsed returns the image that most guests have, for each architecture of the hosts: among
// those of the image's spec, or, where the spec is new, among those of the image's name.
func MostUsed(hosts []Host, image *inventory.Image) []Used {
	list := mostUsed(hosts, image.Name, needOf(image, nil, "").fits)
	named := mostUsed(hosts, image.Name, func(have api.Image) bool { return have.Spec.Name == image.Name })
	return append(list, slices.DeleteFunc(named, func(other Used) bool {
		return slices.ContainsFunc(list, func(u Used) bool { return u.Arch == other.Arch })
	})...)
}

func mostUsed(hosts []Host, name string, fits func(api.Image) bool) []Used {
	var list []Used
	most := map[string]int{} // guests, by architecture
	count := map[string]int{}
	for _, h := range hosts {
		arch := h.State.Host.Arch
		for _, g := range h.State.Guests {
			i := slices.IndexFunc(h.State.Images, func(have api.Image) bool { return have.ID == g.Image && fits(have) })
			if i < 0 {
				continue
			}
			if count[g.Image]++; count[g.Image] <= most[arch] {
				continue
			}
			most[arch] = count[g.Image]
			used := Used{h.State.Images[i], arch, h.name()}
			used.Image.Spec.Name = name
			if at := slices.IndexFunc(list, func(u Used) bool { return u.Arch == arch }); at >= 0 {
				list[at] = used
			} else {
				list = append(list, used)
			}
		}
	}
	return list
}

// ForImage reports whether a step is about an image and not about a guest.
func ForImage(s api.Step) bool { return s.Kind == api.StepImport || s.Kind == api.StepBuildImage }

// Differing returns a line for each image that is not the same on all hosts though
// it was made from the same spec. Only a person can tell which is the right one.
func Differing(hosts []Host) []string {
	type group struct {
		name string
		ids  []string            // in the order of the hosts
		have map[string][]string // hosts by ID
	}
	var groups []*group
	byKey := map[string]*group{}
	for _, h := range hosts {
		for _, use := range h.Plan.uses {
			key := use.key + h.State.Host.Arch
			g := byKey[key]
			if g == nil {
				g = &group{name: use.spec.Name, have: map[string][]string{}}
				byKey[key] = g
				groups = append(groups, g)
			}
			if g.have[use.id] == nil {
				g.ids = append(g.ids, use.id)
			}
			g.have[use.id] = append(g.have[use.id], h.name())
		}
	}
	var list []string
	for _, g := range groups {
		if len(g.ids) < 2 {
			continue
		}
		var parts []string
		for _, id := range g.ids {
			verb := "have"
			if len(g.have[id]) == 1 {
				verb = "has"
			}
			parts = append(parts, fmt.Sprintf("%s %s %s", nodeset.Fold(g.have[id]), verb, id))
		}
		list = append(list, fmt.Sprintf("image %s differs: %s; name the right one in the inventory: images: {%s: {digest: …}}", g.name, strings.Join(parts, ", "), g.name))
	}
	return list
}
