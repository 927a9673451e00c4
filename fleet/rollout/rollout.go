package rollout

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/vsfleet/vsfleet/fleet/plan"
	"github.com/vsfleet/vsfleet/fleet/registry"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/inventory/secret"
	"github.com/vsfleet/vsfleet/node/api"
)

// Node is the vsnode of one host, as a rollout needs it. Its methods may be
// called by several goroutines. When ctx ends, Apply tells the host and waits
// for what it says came of the steps.
type Node interface {
	State(ctx context.Context) (api.State, error)
	Files(ctx context.Context, req api.FilesRequest) (api.FilesAnswer, error)
	Stale(ctx context.Context, req api.StaleRequest) (api.StaleAnswer, error)
	Apply(ctx context.Context, req api.Apply, event func(api.Event)) (api.ApplyResult, error)
	// Lease asks for the right to change the host, Release gives it back; so does
	// Close.
	Lease(ctx context.Context, req api.Lease) (api.LeaseAnswer, error)
	Release(ctx context.Context) error
	// Confirm confirms guarded steps. It must be a connection that was made after them.
	Confirm(ctx context.Context, req api.Confirm) (api.Confirmed, error)
	Lock(ctx context.Context, req api.Lock) error
	RemoveImage(ctx context.Context, req api.RemoveImage) (api.RemovedImage, error)
	DeleteVolume(ctx context.Context, req api.DeleteVolume) (api.Deleted, error)
	CollectImages(ctx context.Context, req api.Collect) (api.Collected, error)
	Arrived(ctx context.Context, req api.ExportImage) (api.Arrived, error)
	Check(ctx context.Context) (api.Check, error)
	// ExportImage writes an image to w, ImportImage has the host take it from r,
	// both beside the requests.
	ExportImage(ctx context.Context, req api.ExportImage, w io.Writer) error
	ImportImage(ctx context.Context, id string, r io.Reader) error
	// MakeImage has the host build an image from r, as a step of Apply.
	MakeImage(ctx context.Context, req api.MakeImage, r io.Reader, event func(api.Event)) (api.StepResult, error)
	Close() error
}

// Fleet carries plans out on hosts.
//
// Its methods are the kinds of runs. Each takes its hosts along a road of
// states (states.go); at those in capitals they wait for one another:
//
//	Plan    connect        compare  ASSIGN  MATCH                    shadows                        predict
//	Apply   connect  LOCK  compare  ASSIGN  MATCH  CONFIRM  PROVIDE  shadows  change  gate  undo   verify
//	Guests  connect  LOCK  act                              PROVIDE           change  gate  undo   verify
//	Each    connect  LOCK                                                     work
//	Work    connect  LOCK  begin, the states of its stages, end               verify
//
// With batches, Apply and Guests take all hosts along a road without leases first
// (connect, compare, ASSIGN, MATCH, CONFIRM, survey), and then each batch along its
// own: see [Strategy].
type Fleet struct {
	// Connect makes a new connection to a host, whatever connections there are. It may be
	// carried by one of another program; what Reconnect makes is not, and shows that the host
	// can be reached. Default of Reconnect: Connect.
	Connect, Reconnect func(context.Context, *inventory.Host) (Node, error)

	Forks   int                // hosts that are worked on at once
	Timeout time.Duration      // of a host's answer to what it has; 0: none
	Watch   func(report.Event) // may be nil; called by many goroutines

	// Open decrypts the secrets in files of guests, before any host is asked; may be nil if
	// there are none.
	Open func(context.Context, []secret.Value) error

	Versions Versions // of the images; nil: each has one

	// Generation is the one that Guests reverts to: the id of the run before which it
	// was kept; empty: the newest.
	Generation string

	Registry registry.Client // of images that no host builds by itself

	Diff  bool // plans ask for what is in files that differ
	Prune bool // guests that are not in the inventory are deleted

	// Saved is the plan that has to be carried out: if that of any host is another
	// one by now, nothing is changed. It may be nil.
	Saved *report.Run

	// Confirm is asked, after the plan, before Apply makes these changes; may be nil.
	// After an error nothing is changed.
	Confirm func(ctx context.Context, changes Changes) error

	Owner    string        // who changes hosts: user@machine
	LockWait time.Duration // for others who change them

	// ConfirmWithin is how long a host waits for a new connection after steps that
	// could cut the controller off, before it takes them back; 0: it does not.
	ConfirmWithin time.Duration

	Strategy Strategy // of runs that change hosts
}

// Plan reports what Apply would do.
//
// The error is that the plan is not the saved one.
func (f *Fleet) Plan(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host) (report.Run, error) {
	if err := f.open(ctx, hosts); err != nil {
		return report.Run{}, err
	}
	return f.start("", hosts).against(inv.Hosts, inv.Image).follow(ctx, toPlan...)
}

// Apply makes the hosts match the inventory. If the plan is not the saved one, or
// Confirm returns an error, nothing is changed, and Apply returns that error.
func (f *Fleet) Apply(ctx context.Context, inv *inventory.Inventory, hosts []*inventory.Host) (report.Run, error) {
	if err := f.open(ctx, hosts); err != nil {
		return report.Run{}, err
	}
	return f.start("apply", hosts).against(inv.Hosts, inv.Image).follow(ctx, toApply...)
}

// open decrypts the secrets that the files of hosts' guests hold.
func (f *Fleet) open(ctx context.Context, hosts []*inventory.Host) error {
	if secrets := inventory.Sealed(hosts); len(secrets) > 0 && f.Open != nil {
		return f.Open(ctx, secrets)
	}
	return nil
}

// Guests carries out an action on guests, on all their hosts at once.
func (f *Fleet) Guests(ctx context.Context, action plan.Action, guests []inventory.Instance) report.Run {
	r := f.start("guest "+string(action), Hosts(guests))
	r.action, r.guests, r.survey = action, guests, beforeAct
	run, _ := r.follow(ctx, toAct...)
	return run
}

// act makes the plan of what is to be done with the guests of a host.
func (r *run) act(_ context.Context, h *host) error {
	var here []*inventory.Guest
	for _, g := range r.guests {
		if g.Host == h.want {
			here = append(here, g.Guest)
		}
	}
	h.plan = plan.Act(r.action, here, h.state.Guests, r.Generation).Prove(h.want, h.prove)
	return nil
}

// Hosts returns the hosts of the guests, each once, in their order.
func Hosts(guests []inventory.Instance) []*inventory.Host {
	var hosts []*inventory.Host
	for _, g := range guests {
		if !slices.Contains(hosts, g.Host) {
			hosts = append(hosts, g.Host)
		}
	}
	return hosts
}

// Each calls do for every host, to change it in a way that is not a step. do returns
// the text for the report.
func (f *Fleet) Each(ctx context.Context, reason string, hosts []*inventory.Host, do func(context.Context, Node) (string, error)) report.Run {
	return f.EachHost(ctx, reason, hosts, func(ctx context.Context, _ string, n Node) (string, error) { return do(ctx, n) })
}

// EachHost is Each for a function that needs the host's name.
func (f *Fleet) EachHost(ctx context.Context, reason string, hosts []*inventory.Host, do func(ctx context.Context, host string, n Node) (string, error)) report.Run {
	work := state{name: "work", acts: always, disrupts: always, timed: true, each: func(_ *run, ctx context.Context, h *host) (err error) {
		h.text, err = do(ctx, h.name, h.node.Node)
		return err
	}}
	run, _ := f.start(reason, hosts).follow(ctx, connect, lock, work)
	return run
}

// run is one run over a fleet.
type run struct {
	*Fleet
	id     string
	reason string // "apply"; empty: nothing is changed
	hosts  []*host
	begun  time.Time

	rule      *rule          // nil: nothing is changed
	survey    []state        // the road before the batches; nil: none
	surveying bool           // on that road: no leases
	surveyed  bool           // it is behind us
	batches   []report.Batch // that were begun, if there are several
	at        []*host        // those under way: the batch, and its helpers
	turns     chan struct{}  // of hosts that wait for a budget; nil: no host does

	action plan.Action          // of Guests
	guests []inventory.Instance // of Guests

	inventory  []*inventory.Host                  // all, also those that are not in the run
	image      func(name string) *inventory.Image // of the inventory
	others     []*host                            // of the inventory's, those that were asked for images
	notes      []string
	confirmed  map[string]bool // guests that may be deleted
	supplies   []*supply       // the images that hosts lack
	delivering sync.WaitGroup  // those that are built and handed out
}

// start begins a run. reason is what it changes hosts for; it is empty for a run
// that changes nothing.
func (f *Fleet) start(reason string, hosts []*inventory.Host) *run {
	r := &run{Fleet: f, reason: reason, begun: time.Now()}
	r.id = report.NewID(r.begun)
	for _, h := range hosts {
		r.hosts = append(r.hosts, newHost(h))
	}
	return r
}

// against sets the inventory that the hosts are compared with.
func (r *run) against(all []*inventory.Host, image func(string) *inventory.Image) *run {
	r.inventory, r.image = all, image
	r.survey = beforeApply
	return r
}

// close ends the connections of the hosts under way. Their errors are ignored: all
// results are there.
func (r *run) close() {
	for _, m := range r.supplies {
		m.close()
	}
	var group sync.WaitGroup
	for _, h := range slices.Concat(r.others, r.at) {
		if h.node != nil {
			group.Go(func() { h.node.Close() })
		}
	}
	group.Wait()
	r.supplies, r.others = nil, nil
}
