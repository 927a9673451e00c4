package plan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Plan is what must change on a host.
type Plan struct {
	Steps   []api.Step
	Refused []Refusal // guests that the host cannot have as the inventory wants them
	Foreign []string  // guests of the host that the inventory does not know
	// Unread is what is in the configuration of guests and has no effect.
	Unread map[string][]api.Unread

	// Waits are the guests whose steps lack the ID of an image, which the host
	// does not have yet, each with the image's key.
	Waits map[string]string
	// Cuts are the indices of Steps before which all earlier ones must be
	// done: a guest takes over what another one gives up.
	Cuts []int

	// images are the missing ones by key, in the order of the guests.
	images []need
	// uses are the images that its guests have or will have, as far as the host
	// has them.
	uses []use
}

// use is an image that a guest has or will have.
type use struct {
	need
	id string
}

// Refusal is why a guest is not planned.
type Refusal struct {
	Guest string
	Err   error
}

// Make compares what a host should have with what it has. Where images come
// from is not its matter: guests whose image is missing have steps without an
// image's ID until it is there.
func Make(host *inventory.Host, state api.State, files api.FilesAnswer, images func(name string) *inventory.Image) Plan {
	p := Plan{Waits: map[string]string{}, Unread: map[string][]api.Unread{}}
	known := map[string]bool{}
	for _, want := range host.Guests {
		known[want.Name] = true
	}
	inGuest := map[string]api.GuestFilesState{}
	for _, g := range files.Guests {
		inGuest[g.Guest] = g
	}
	index := map[string]int{}
	strangers := map[int]string{}
	for i, g := range state.Guests {
		index[g.Name] = i
		if !known[g.Name] {
			p.Foreign = append(p.Foreign, g.Name)
			strangers[g.Context] = g.Name
		}
	}
	var deletes, creates []change
	var changes []change
	for _, want := range host.Guests {
		i, there := index[want.Name]
		if want.State == inventory.Absent {
			if there {
				deletes = append(deletes, change{name: want.Name, old: state.Guests[i].Guest, runs: state.Guests[i].Runs, steps: []api.Step{
					{Kind: api.StepDelete, Name: want.Name, Why: "the inventory says absent"},
				}})
			}
			continue
		}
		image := images(want.Image)
		if image == nil { // inventory.Load refuses this; a caller's own inventory may not
			p.refuse(want.Name, fmt.Errorf("there is no image %q", want.Image))
			continue
		}
		g, err := resolve(want, state.Host)
		if err == nil {
			err = stranger(g, strangers)
		}
		if err != nil {
			p.refuse(want.Name, err)
			continue
		}
		wants := needOf(image)
		var now *api.GuestState
		if there {
			now = &state.Guests[i]
			if refusing := api.Refusing(now.Unread); len(refusing) > 0 && now.Status != api.Running && want.State == inventory.Running {
				p.refuse(want.Name, fmt.Errorf("it would not start: its configuration on the host says what cannot be had: %s", strings.Join(api.Explain(refusing), "; ")))
				continue
			}
			if len(now.Unread) > 0 {
				p.Unread[want.Name] = now.Unread
			}
		}
		if g.Image = wants.choose(state.Images, now); g.Image == "" {
			p.await(want.Name, wants)
		} else if !slices.ContainsFunc(p.uses, func(u use) bool { return u.id == g.Image && u.key() == wants.key() }) {
			p.uses = append(p.uses, use{wants, g.Image})
		}
		if now == nil {
			steps := withFiles(create(g, want.State), want, nil, false)
			creates = append(creates, change{name: want.Name, new: g, steps: steps})
			continue
		}
		answer := inGuest[want.Name]
		have := &answer
		switch {
		case have.Problem == "":
		case now.Problem != "": // which this run mends first; the host compares again before it writes
			have = nil
		default:
			p.refuse(want.Name, errors.New("its files: "+have.Problem))
		}
		steps := withFiles(alter(g, wants.spec, *now, state, want.State), want, have, now.Status == api.Running)
		if len(steps) > 0 {
			changes = append(changes, change{name: want.Name, old: now.Guest, runs: now.Runs, new: g, steps: steps})
		}
	}
	p.order(deletes, changes, creates)
	return p
}

// stranger refuses a context that a guest has which is not in the inventory, in
// the plan already. What else two guests can clash in the host refuses, before it
// stops anything.
func stranger(g api.Guest, strangers map[int]string) error {
	if name := strangers[g.Context]; name != "" && g.Context != 0 {
		return fmt.Errorf("context %d is guest %s's, which is on the host and not in the inventory: give that one state: absent there, or another context", g.Context, name)
	}
	return nil
}

// Spec is what a host is told of an image.
func Spec(image *inventory.Image) api.ImageSpec {
	return api.ImageSpec{Name: image.Name, Method: image.Method, Args: image.Args, Packages: image.Packages, Files: wireFiles(image.Files)}
}

func (p *Plan) refuse(guest string, err error) {
	p.Refused = append(p.Refused, Refusal{guest, err})
}

func (p *Plan) await(guest string, image need) {
	key := image.key()
	p.Waits[guest] = key
	if !slices.ContainsFunc(p.images, func(n need) bool { return n.key() == key }) {
		p.images = append(p.images, image)
	}
}

// resolve is the configuration of a guest as this host is to have it.
func resolve(want *inventory.Guest, host api.Host) (api.Guest, error) {
	g := want.Guest
	g.Image = "" // chosen from what the host has
	g.Hostname = cmp.Or(g.Hostname, g.Name)
	g.Init.Style = cmp.Or(g.Init.Style, "plain")
	if want.HostAddress {
		if !host.DefaultAddress.IsValid() {
			return g, errors.New("it shares the host's address, and the host has none that is not local: give the guest one with network: {address: …}")
		}
		g.Network.Addresses = []netip.Prefix{host.DefaultAddress}
	}
	if g.Network.Mode == api.ModeOwn {
		if g.Network.Dev = cmp.Or(want.Network.Dev, host.DefaultDev); g.Network.Dev == "" {
			return g, errors.New("its addresses need a network device, and the host has no default route to tell which: give the host a netdev")
		}
	}
	return g, limitable(&g, host.Controllers)
}

// limitable refuses limits that the host could not hold: a guest that only
// seems to be limited is worse than none. Processes are bounded without a
// controller, too.
func limitable(g *api.Guest, controllers []string) error {
	var errs []string
	for _, row := range setting.Table {
		if row.Controller != "" && row.Given(g) && !slices.Contains(controllers, row.Controller) {
			errs = append(errs, fmt.Sprintf("%s (controller %s)", row.Plan, row.Controller))
		}
	}
	if errs == nil {
		return nil
	}
	return fmt.Errorf("the host's cgroup v2 cannot limit %s: boot it with systemd.unified_cgroup_hierarchy=1, or take the limit out", strings.Join(errs, ", "))
}

// create is the steps of a guest that the host does not have.
func create(g api.Guest, state string) []api.Step {
	steps := []api.Step{{Kind: api.StepCreate, Name: g.Name, Guest: &g, Why: "it is not on the host"}}
	if state == inventory.Running {
		steps = append(steps, api.Step{Kind: api.StepStart, Name: g.Name, Why: "the inventory says running"})
	}
	return steps
}

// alter is the steps from the guest that the host has to the wanted one.
func alter(g api.Guest, spec api.ImageSpec, now api.GuestState, host api.State, state string) []api.Step {
	if g.Context == 0 {
		g.Context = now.Context
	}
	running := now.Status == api.Running
	compare := func(have api.Guest) []difference {
		was, is := imageNames(have.Image, g.Image, spec, host.Images)
		return differences(g, have, was, is, host.Host.Controllers)
	}
	diffs := compare(now.Guest)
	if now.Problem != "" {
		diffs = []difference{{text: "its configuration cannot be used: " + now.Problem, restart: true}}
	}
	var texts []string
	for _, d := range diffs {
		texts = append(texts, d.text)
	}
	// A guest may run with other settings than are configured: an earlier run
	// was killed in between, or somebody edited files.
	behind := diffs
	if running && now.Runs != nil {
		behind = compare(*now.Runs)
	}
	restart, stop := false, running && state == inventory.Stopped
	for _, d := range behind {
		restart = restart || d.restart
		stop = stop || running && d.stop
		if len(diffs) == 0 && !d.restart {
			texts = append(texts, "it still runs with "+d.text)
		}
	}
	step := func(kind api.StepKind, why string) api.Step { return api.Step{Kind: kind, Name: g.Name, Why: why} }
	var steps []api.Step
	switch {
	case stop && state == inventory.Stopped:
		steps = append(steps, step(api.StepStop, "the inventory says stopped"))
	case stop:
		steps = append(steps, step(api.StepStop, "its context cannot change while it runs"))
	}
	if len(texts) > 0 {
		steps = append(steps, api.Step{Kind: api.StepConfigure, Name: g.Name, Guest: &g, Why: strings.Join(texts, "; ")})
	}
	switch {
	case state != inventory.Running:
	case stop:
		steps = append(steps, step(api.StepStart, "the inventory says running"))
	case !running:
		is := "stopped"
		if now.Ended != nil {
			is += " (" + now.Ended.String() + ")"
		}
		steps = append(steps, step(api.StepStart, "it is "+is+", the inventory says running"))
	case restart:
		steps = append(steps, step(api.StepRestart, "so that it takes its new configuration"))
	case len(now.Drift) > 0:
		steps = append(steps, step(api.StepRepair, strings.Join(now.Drift, "; ")))
	}
	return steps
}

// imageNames is what people call the image that a guest has and the wanted one:
// their names, and where these are equal what makes them differ.
func imageNames(has, wanted string, spec api.ImageSpec, images []api.Image) (was, is string) {
	is = spec.Name
	i := slices.IndexFunc(images, func(image api.Image) bool { return image.ID == has })
	switch {
	case has == "":
		return "", is
	case i < 0:
		return short(has), is
	case images[i].Spec.Name != is:
		return images[i].Spec.Name, is
	case wanted == "":
		return is + " (" + short(has) + ")", is + " (not there yet)"
	}
	return is + " (" + short(has) + ")", is + " (" + short(wanted) + ")"
}

// short is the start of an image's digest, as much as tells it from others.
func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}
