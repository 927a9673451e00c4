package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// guestSpec is a guest as written in its file, before it is resolved for a host.
type guestSpec struct {
	name  string
	pos   Position
	index int // in builder.guests
	on    []text

	image, context, state text

	settings settings
	init     text
	command  []text
	network  networkSpec
	files    []*fileSpec
	secrets  []*fileSpec // credentials
	hooks    []*fileSpec
	health   healthSpec

	mounts, volumes []*mountSpec
	shadowed        []shadowRule
}

// settings are the values that a guest's file has for setting.Table, by the keys of
// the rows.
type settings map[string][]text

// keys returns the keys of the settings in a block, each with a function that reads
// its value into s.
func (s settings) keys(d *decoder, block string) []key {
	var keys []key
	for _, row := range setting.In(block) {
		var read func(string, *yaml.Node)
		switch row.Form {
		case setting.Text:
			read = func(name string, v *yaml.Node) {
				var t text
				if d.Text(&t, row.Want)(name, v); t.OK() {
					s[row.Key] = []text{t}
				}
			}
		case setting.List:
			read = func(name string, v *yaml.Node) {
				var list []text
				d.Texts(&list, row.Want)(name, v)
				s[row.Key] = list
			}
		case setting.Flag:
			read = func(name string, v *yaml.Node) {
				var is given[bool]
				if d.Flag(&is)(name, v); is.OK() {
					s[row.Key] = []text{{Value: strconv.FormatBool(is.Value), Pos: is.Pos}}
				}
			}
		case setting.Block:
			continue // network.go, mounts.go and init
		}
		keys = append(keys, key{Name: row.Name(), Read: read})
	}
	return keys
}

var (
	states = []string{Running, Stopped, Absent}
	inits  = []string{"plain", "sysv", "openrc"}
)

// guest reads one entry of guests.
func (b *builder) guest(d *decoder, k text, v *yaml.Node) {
	g := &guestSpec{name: k.Value, pos: k.Pos, settings: settings{}}
	given := d.Fields("guest "+k.Value, v, "a mapping, as {on: web, image: bookworm}", append(g.settings.keys(d, ""), []key{
		{Name: "on", Read: d.patterns(&g.on)},
		{Name: "image", Read: d.Text(&g.image, "an image's name")},
		{Name: "context", Read: d.Text(&g.context, "a number from 2 to 49151")},
		{Name: "state", Read: d.Text(&g.state, orList(states))},
		{Name: "network", Read: func(name string, v *yaml.Node) { d.network(g, name, v) }},
		{Name: "files", Read: d.files(&g.files)},
		{Name: "credentials", Read: d.credentials(&g.secrets)},
		{Name: "hooks", Read: d.hooks(&g.hooks)},
		{Name: "health", Read: d.health(&g.health)},
		{Name: "mounts", Read: d.mounts(&g.mounts)},
		{Name: "volumes", Read: d.volumes(&g.volumes)},
		{Name: "shadowed", Read: d.shadowed(&g.shadowed)},
		{Name: "init", Read: func(name string, v *yaml.Node) { d.init(g, name, v) }},
		{Name: "limits", Read: func(name string, v *yaml.Node) {
			d.Fields(name, v, "a mapping, as {memory: 512M, cpu: 1.5, processes: 500}", g.settings.keys(d, "limits"))
		}},
	}...))
	if err := checkName(k.Value, maxName); err != nil {
		d.Add(k.Pos, "", "guest %v", err)
		return
	}
	if first := b.guestAt[k.Value]; first != nil {
		d.Add(k.Pos, "", "guest %q is defined twice, first at %s", k.Value, first.pos)
		return
	}
	if given == nil {
		return
	}
	if _, named := given["on"]; !named {
		d.Add(k.Pos, `say on which hosts it is, as on: "web*"`, "guest %q has no on", k.Value)
	}
	if _, named := given["image"]; !named {
		d.Add(k.Pos, "", "guest %q has no image", k.Value)
	}
	g.index = len(b.guests)
	b.guestAt[g.name] = g
	b.guests = append(b.guests, g)
}

// init reads a word of inits or {command: [...]}.
func (d *decoder) init(g *guestSpec, name string, v *yaml.Node) {
	const want = "plain, sysv, openrc or {command: [/usr/sbin/sshd, -D]}"
	if yamlpos.Target(v).Kind != yaml.MappingNode {
		d.Text(&g.init, want)(name, v)
		if err := oneOf(name, g.init.Value, inits); g.init.OK() && err != nil {
			d.Failed(g.init.Pos, &Error{Msg: fmt.Sprintf("init: want %s, have %q", want, g.init.Value), Hint: err.Hint})
		}
		return
	}
	d.Fields(name, v, want, []key{{Name: "command", Read: d.Texts(&g.command, "a list of words, as [/usr/sbin/sshd, -D]")}})
	if len(g.command) == 0 || g.command[0].Value == "" {
		d.Add(d.At(yamlpos.Target(v)), "", "init: the command is empty, want %s", want)
	}
}

// placement is a guest on a host, with its spec for the positions in the files.
type placement struct {
	guest *Guest
	spec  *guestSpec
}

// resolveGuests creates an instance of each guest on each of its hosts.
func (b *builder) resolveGuests() {
	b.placements = make([][]placement, len(b.inv.Hosts))
	found := map[string][]int{} // pattern: often the same for many guests
	for _, spec := range b.guests {
		b.resolve(spec, nil)
		for _, pattern := range spec.on {
			if _, known := found[pattern.Value]; !known {
				set, err := b.inv.hosts.match(pattern.Value)
				if err != nil {
					b.Failed(pattern.Pos, err)
					continue
				}
				found[pattern.Value] = indices(set)
			}
			for _, i := range found[pattern.Value] {
				b.addPlacement(spec, i)
			}
		}
	}
	for i, h := range b.inv.Hosts {
		slices.SortFunc(b.placements[i], func(x, y placement) int { return cmp.Compare(x.guest.Name, y.guest.Name) })
		for _, p := range b.placements[i] {
			h.Guests = append(h.Guests, p.guest)
		}
	}
}

// addPlacement adds a guest to the host of that index, once.
func (b *builder) addPlacement(spec *guestSpec, i int) {
	on := b.placements[i]
	if len(on) > 0 && on[len(on)-1].spec == spec { // guests come one after the other
		return
	}
	if guest := b.resolve(spec, b.inv.Hosts[i]); guest != nil {
		b.placements[i] = append(on, placement{guest, spec})
	}
}

// resolver resolves the texts of one guest for one host. Without a host it checks
// those that hold no variables, so that mistakes are found even in a guest that is
// on no host.
type resolver struct {
	*builder
	scope  scope
	failed bool
}

// value passes the expanded text to read and reports its error.
func (r *resolver) value(t text, name string, read func(string) error) {
	if !t.OK() {
		return
	}
	variable := hasVariable(t.Value)
	s, bad := r.scope.expand(t.Value)
	if bad == nil {
		if variable && r.scope.host == nil {
			return
		}
		err := read(s)
		if err == nil {
			return
		}
		if !errors.As(err, &bad) {
			bad = &Error{Msg: name + ": " + err.Error()}
		}
		if variable {
			bad.Msg += " on host " + r.scope.host.Name
		}
	}
	r.failed = true
	r.FailedIn(t, bad)
}

// resolve returns the guest on a host, or nil if something is wrong with it.
func (b *builder) resolve(spec *guestSpec, h *Host) *Guest {
	r := &resolver{builder: b, scope: scope{host: h, guest: spec.name}}
	g := &Guest{State: Running, Pos: spec.pos, Guest: setting.Guest{
		Name: spec.name, Hostname: spec.name, Init: setting.Init{Style: cmp.Or(spec.init.Value, "plain")},
	}}
	r.value(spec.image, "image", func(s string) error {
		g.Image = s
		if b.inv.images[s] != nil {
			return nil
		}
		return &Error{Msg: fmt.Sprintf("image: there is no image %q", s), Hint: b.DidYouMean(s, sortedKeys(b.inv.images))}
	})
	r.value(spec.context, "context", func(s string) error {
		n, err := setting.WholeNumber(s, 2, 49151)
		if s == "0" {
			return &Error{Msg: "context: " + err.Error(), Hint: "leave context out to let the host choose"}
		}
		g.Context = int(n)
		return err
	})
	r.value(spec.state, "state", func(s string) error {
		g.State = s
		if err := oneOf("state", s, states); err != nil {
			return err
		}
		return nil
	})
	for _, word := range spec.command {
		g.Init.Style = "command"
		r.value(word, "init", func(s string) error {
			g.Init.Command = append(g.Init.Command, s)
			if strings.ContainsRune(s, 0) {
				return fmt.Errorf("%q holds a zero byte, which no argument can", s)
			}
			return nil
		})
	}
	// An init of a distribution starts services that have namespaces of their own.
	g.NoNesting = g.Init.Style == "command"
	r.network(&spec.network, g)
	r.settings(spec.settings, g)
	g.Shadowed = r.shadowed(spec.shadowed)
	if image := b.inv.images[g.Image]; image != nil {
		g.Shadowed = strings.TrimSpace(g.Shadowed + " " + image.Shadowed)
	}
	g.Mounts, g.Volumes = r.mounts(spec.mounts), r.mounts(spec.volumes)
	err := g.Check()
	if l := g.Limits; err == nil && l.MemoryBytes > 0 && l.MemoryHighBytes > l.MemoryBytes {
		err = fmt.Errorf("memory_high, from which it is slowed down, is above memory, which it never exceeds: give less than %d MiB", l.MemoryBytes>>20)
	}
	if err != nil && !r.failed && h != nil {
		r.failed = true
		r.Failed(spec.pos, &Error{Msg: fmt.Sprintf("guest %s: %v", spec.name, err)})
	}
	g.Files = r.resolveFiles(slices.Concat(spec.files, spec.secrets, spec.hooks), false)
	r.boundCredentials(g.Files)
	g.Health = r.resolveHealth(&spec.health)
	if r.failed || h == nil {
		return nil
	}
	return g
}

// settings sets g as its file has it.
func (r *resolver) settings(given settings, g *Guest) {
	for _, row := range setting.Table {
		for _, t := range given[row.Key] {
			r.value(t, row.Name(), func(s string) error {
				if row.Words != nil {
					if err := oneOf(row.Name(), s, row.Words); err != nil {
						return err
					}
				}
				return row.Parse(&g.Guest, s)
			})
		}
	}
}
