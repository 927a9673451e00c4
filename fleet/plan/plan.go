package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// Plan is what must change on a host. It is a value: methods return another plan.
type Plan struct {
	Steps   []api.Step
	Refused []Refusal // guests that the host cannot have as the inventory wants them
	Foreign []string  // guests on the host that are not in the inventory, and are left alone
	Drift   []Drift   // what the host has otherwise than the inventory wants it
	// Unread are the files in the configuration of guests that have no effect.
	Unread map[string][]api.Unread

	// Waits has the guests whose image the host lacks, with the key of that image.
	// Their steps have no image ID yet.
	Waits map[string]string
	// Cuts are indices of Steps. All steps before a cut must be done before those
	// after it: there a guest takes over what another one gives up.
	Cuts []int

	// images are those that the host lacks, in the order of the guests.
	images []need
	// uses are the images of its guests that the host has.
	uses []use
}

// use is an image that a guest has or is to have.
type use struct {
	need
	id string
}

// Refusal is why a guest is not planned.
type Refusal struct {
	Guest string
	Err   error
}

// Rules hold for all hosts of a run.
type Rules struct {
	Image func(name string) *inventory.Image // of the inventory
	// Versions of the images; nil: each has one.
	Versions Versions
	Prune    bool // delete guests that are not in the inventory
}

// Versions knows which version of each image guests are to have.
type Versions interface {
	// Current returns its ID by the image's name, the key of its spec and the
	// architecture; or "", if any image of the spec will do.
	Current(name, key, arch string) string
	// Number returns the version that an ID is, or 0.
	Number(id string) int
}

// Make compares what a host should have with what it has, and returns the steps
// that make it so. Guests whose image the host lacks have steps without an
// image's ID; [Plan.Give] sets it when the image is there.
func Make(host *inventory.Host, state api.State, files api.FilesAnswer, rules Rules) Plan {
	c := newComparison(host, state, files, rules)
	deletes := c.foreign(state.Guests)
	var changes, creates []change
	for _, want := range host.Guests {
		made, err := c.guest(want)
		if err != nil {
			c.plan.refuse(want.Name, err)
		}
		switch {
		case len(made.steps) == 0:
		case want.State == inventory.Absent:
			deletes = append(deletes, made)
		case c.now[want.Name] == nil:
			creates = append(creates, made)
		default:
			changes = append(changes, made)
		}
	}
	c.plan.order(deletes, changes, creates)
	return c.plan
}

// comparison is a host that is compared with its inventory.
type comparison struct {
	plan  Plan
	rules Rules
	host  api.Host
	built []api.Image
	needs map[*inventory.Image]need

	known     map[string]bool // guests of the inventory
	now       map[string]*api.GuestState
	files     map[string]api.GuestFilesState
	strangers map[int]string // guests that are not in the inventory and stay, by their contexts
}

func newComparison(host *inventory.Host, state api.State, files api.FilesAnswer, rules Rules) *comparison {
	c := &comparison{
		plan:  Plan{Waits: map[string]string{}, Unread: map[string][]api.Unread{}},
		rules: rules, host: state.Host, built: state.Images, needs: map[*inventory.Image]need{},
		known: map[string]bool{}, now: map[string]*api.GuestState{}, files: map[string]api.GuestFilesState{}, strangers: map[int]string{},
	}
	for _, want := range host.Guests {
		c.known[want.Name] = true
	}
	for i, g := range state.Guests {
		c.now[g.Name] = &state.Guests[i]
	}
	for _, g := range files.Guests {
		c.files[g.Guest] = g
	}
	return c
}

// foreign records the guests of the host that are not in the inventory, and returns
// the steps that delete them, if that is a rule.
func (c *comparison) foreign(have []api.GuestState) []change {
	var deletes []change
	for i, g := range have {
		switch {
		case c.known[g.Name]:
		case c.rules.Prune:
			deletes = append(deletes, change{old: &have[i].Guest, runs: g.Runs, steps: []api.Step{
				{Kind: api.StepDelete, Name: g.Name, Why: "it is not in the inventory (--prune)"},
			}})
			c.drift(g.Name, "guest", "there", "not in the inventory")
		default:
			c.drift(g.Name, "guest", "there", "not in the inventory")
			c.plan.Foreign = append(c.plan.Foreign, g.Name)
			c.strangers[g.Context] = g.Name
		}
	}
	return deletes
}

// guest returns what has to change for one guest. A guest whose files cannot be
// had is refused, and changed in all else.
func (c *comparison) guest(want *inventory.Guest) (change, error) {
	now := c.now[want.Name]
	if want.State == inventory.Absent {
		if now == nil {
			return change{}, nil
		}
		c.drift(want.Name, "guest", "there", "absent")
		return change{old: &now.Guest, runs: now.Runs, steps: []api.Step{
			{Kind: api.StepDelete, Name: want.Name, Why: "the inventory says absent"},
		}}, nil
	}
	image := c.rules.Image(want.Image)
	if image == nil { // inventory.Load refuses this; a caller's own inventory may not
		return change{}, fmt.Errorf("there is no image %q", want.Image)
	}
	g, err := resolve(want, c.host)
	if err == nil {
		err = stranger(g, c.strangers)
	}
	if err == nil && now != nil {
		err = startable(want, now)
	}
	if err != nil {
		return change{}, err
	}
	wants, known := c.needs[image]
	if !known { // a key is a digest: not one for each of a thousand guests
		wants = needOf(image, c.rules.Versions, c.host.Arch)
		c.needs[image] = wants
	}
	g.Image = c.plan.use(want.Name, wants, wants.choose(c.built, now))
	if now == nil {
		c.drift(want.Name, "guest", "", want.State)
		steps, err := withFiles(create(g, want.State), want, nil, nil, false)
		if lacks := lacks(steps, c.files[want.Name].Missing); lacks != nil {
			return change{}, lacks
		}
		return change{new: &g, steps: withHealth(steps, want)}, err
	}
	g.Context = cmp.Or(g.Context, now.Context)
	if len(now.Unread) > 0 {
		c.plan.Unread[want.Name] = now.Unread
	}
	answer := c.files[want.Name]
	have := &answer
	switch {
	case have.Problem == "":
	case now.Problem != "": // which this run mends first; the host compares again before it writes
		have = nil
	default:
		err = errors.New("its files: " + have.Problem)
	}
	steps, sealed := withFiles(c.alter(g, wants.spec, *now, want.State), want, now.Hooks, have, now.Status == api.Running)
	if sealed != nil {
		return change{}, sealed
	}
	if lacks := lacks(steps, answer.Missing); lacks != nil {
		return change{}, lacks
	}
	if len(steps) > 0 {
		c.guestDrift(want, g, wants.spec, now, have)
	}
	return change{old: &now.Guest, runs: now.Runs, new: &g, steps: withHealth(steps, want)}, err
}

// use records the image of a guest and returns its ID, which is empty if the host
// does not have it.
func (p *Plan) use(guest string, image need, id string) string {
	if id == "" {
		p.Waits[guest] = image.key
		if !slices.ContainsFunc(p.images, func(n need) bool { return n.key == image.key }) {
			p.images = append(p.images, image)
		}
	} else if !slices.ContainsFunc(p.uses, func(u use) bool { return u.id == id && u.key == image.key }) {
		p.uses = append(p.uses, use{image, id})
	}
	return id
}

func (p *Plan) refuse(guest string, err error) {
	p.Refused = append(p.Refused, Refusal{guest, err})
}
