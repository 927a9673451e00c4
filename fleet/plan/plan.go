package plan

import (
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
	Foreign []string  // guests on the host that are not in the inventory
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

// Make compares what a host should have with what it has, and returns the steps
// that make it so. Guests whose image the host lacks have steps without an
// image's ID; [Plan.Give] sets it when the image is there.
func Make(host *inventory.Host, state api.State, files api.FilesAnswer, images func(name string) *inventory.Image) Plan {
	c := newComparison(host, state, files, images)
	var deletes, changes, creates []change
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
	plan   Plan
	host   api.Host
	built  []api.Image
	images func(name string) *inventory.Image
	needs  map[*inventory.Image]need

	now       map[string]*api.GuestState
	files     map[string]api.GuestFilesState
	strangers map[int]string // guests that are not in the inventory, by their contexts
}

func newComparison(host *inventory.Host, state api.State, files api.FilesAnswer, images func(string) *inventory.Image) *comparison {
	c := &comparison{
		plan: Plan{Waits: map[string]string{}, Unread: map[string][]api.Unread{}},
		host: state.Host, built: state.Images, images: images, needs: map[*inventory.Image]need{},
		now: map[string]*api.GuestState{}, files: map[string]api.GuestFilesState{}, strangers: map[int]string{},
	}
	known := map[string]bool{}
	for _, want := range host.Guests {
		known[want.Name] = true
	}
	for i, g := range state.Guests {
		c.now[g.Name] = &state.Guests[i]
		if !known[g.Name] {
			c.plan.Foreign = append(c.plan.Foreign, g.Name)
			c.strangers[g.Context] = g.Name
		}
	}
	for _, g := range files.Guests {
		c.files[g.Guest] = g
	}
	return c
}

// guest returns what has to change for one guest. A guest whose files cannot be
// had is refused, and changed in all else.
func (c *comparison) guest(want *inventory.Guest) (change, error) {
	now := c.now[want.Name]
	if want.State == inventory.Absent {
		if now == nil {
			return change{}, nil
		}
		return change{old: &now.Guest, runs: now.Runs, steps: []api.Step{
			{Kind: api.StepDelete, Name: want.Name, Why: "the inventory says absent"},
		}}, nil
	}
	image := c.images(want.Image)
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
		wants = needOf(image)
		c.needs[image] = wants
	}
	g.Image = c.plan.use(want.Name, wants, wants.choose(c.built, now))
	if now == nil {
		return change{new: &g, steps: withFiles(create(g, want.State), want, nil, false)}, nil
	}
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
	steps := withFiles(alter(g, wants.spec, *now, c.built, c.host.Controllers, want.State), want, have, now.Status == api.Running)
	return change{old: &now.Guest, runs: now.Runs, new: &g, steps: steps}, err
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
