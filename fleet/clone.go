package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/fleet/identity"
	"github.com/vsfleet/vsfleet/fleet/remote"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// CloneOptions are how a guest is cloned.
type CloneOptions struct {
	Hostname  string         // of a clone that the inventory lacks; empty: its name
	Addresses []netip.Prefix // of the same
	Volumes   bool           // a guest with volumes is cloned without them
	Start     bool
	Progress  func(string) // called with what is done
}

// Clone makes another guest of a guest, on its host or on another one, with an identity of its own.
// A running guest goes on while its files are copied, and stands still while what it has changed
// meanwhile is copied again. If the inventory has the clone, its settings are the inventory's,
// else those of the guest without what two guests cannot both have. A guest that is there is
// never touched, and a clone that was cut off is none.
func (a *Access) Clone(ctx context.Context, inv *inventory.Inventory, from, to inventory.Instance, opt CloneOptions) report.Host {
	return a.changed("guest clone", to, func() error { return a.clone(ctx, inv, from, to, opt) })
}

func (a *Access) clone(ctx context.Context, inv *inventory.Inventory, from, to inventory.Instance, opt CloneOptions) error {
	target, err := a.Open(ctx, to.Host)
	if err != nil {
		return err
	}
	defer target.Close()
	state, release, err := a.lease(ctx, target, "guest clone")
	if err != nil {
		return err
	}
	defer release()
	source, was := target, state
	if from.Host.Name != to.Host.Name {
		if source, err = a.Open(ctx, from.Host); err != nil {
			return err
		}
		defer source.Close()
		if was, err = source.State(ctx); err != nil {
			return err
		}
	}
	now := guestOf(was, from.Guest.Name)
	switch {
	case now == nil:
		return fmt.Errorf("%s has no guest %s", from.Host.Name, from.Guest.Name)
	case guestOf(state, to.Guest.Name) != nil:
		return fmt.Errorf("%s has a guest %s: delete it first (vsfleet guest delete %s), or name the clone otherwise", to.Host.Name, to.Guest.Name, place(to))
	case len(now.Volumes) > 0 && !opt.Volumes:
		return fmt.Errorf("its volumes are not cloned (%s): two guests would write to them; run this again with --leave-volumes, and copy what is in them", volumes(now.Guest))
	}
	steps := []api.Step{{Kind: api.StepStart, Name: to.Guest.Name}}
	var settings api.Guest
	if listed(to) {
		settings, steps, err = a.wanted(ctx, inv, to, state)
	} else {
		settings, err = cloned(now.Guest, to.Guest.Name, was.Host, state.Host, opt)
	}
	if err != nil {
		return err
	}
	c := cloning{from: from.Guest.Name, to: to.Guest.Name, id: report.NewID(time.Now()), source: source, target: target, change: changeOf(now.Guest, settings)}
	opt.Progress("copy its files")
	if err := c.rounds(ctx, now.Status == api.Running); err != nil {
		return err
	}
	if err := a.bring(ctx, inv, c.image, to.Host, target, state, opt.Progress); err != nil {
		return err
	}
	settings.Image = c.image
	if err := target.ReceiveGuest(ctx, api.ReceiveGuest{Guest: settings, Move: c.id, Create: true}, strings.NewReader("")); err != nil {
		return err
	}
	if !opt.Start {
		return nil
	}
	return take(ctx, target, steps)
}

// cloning is a clone under way.
type cloning struct {
	from, to       string // guests
	id             string
	source, target *Node
	change         *identity.Change
	image          string
}

// rounds copies the guest's files: while it runs, then what has changed while it stands still.
func (c *cloning) rounds(ctx context.Context, running bool) error {
	req := api.SendGuest{Guest: c.from, How: api.SendFrozen}
	var index []byte
	if running {
		var err error
		live := api.SendGuest{Guest: c.from, How: api.SendLive, Index: true}
		var sent api.SentGuest
		err = c.round(ctx, func(ctx context.Context, w io.Writer) (err error) {
			sent, index, err = sendIndexed(ctx, c.source, live, w)
			return err
		})
		if err != nil {
			return err
		}
		req.Since, index = sent.Begun, withoutIdentity(index)
	}
	return c.round(ctx, func(ctx context.Context, w io.Writer) error {
		sent, err := c.source.SendGuest(ctx, req, remote.Streams{In: strings.NewReader(string(index)), Out: w})
		c.image = sent.Image
		return err
	})
}

// round sends what send writes, with the clone's identity.
func (c *cloning) round(ctx context.Context, send func(context.Context, io.Writer) error) error {
	return piped(ctx, send, func(ctx context.Context, r io.Reader) error {
		return piped(ctx,
			func(ctx context.Context, w io.Writer) error { return c.change.Apply(ctx, r, w) },
			func(ctx context.Context, r io.Reader) error {
				return c.target.ReceiveGuest(ctx, api.ReceiveGuest{Guest: api.Guest{Name: c.to}, Move: c.id}, r)
			})
	})
}

// withoutIdentity returns an index without the files that a clone has otherwise: they are sent
// in each round.
func withoutIdentity(index []byte) []byte {
	var kept []byte
	for line := range strings.Lines(string(index)) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, `"`), `"`) // a path with other characters is none of these
		if !identity.Has(name) {
			kept = append(kept, line...)
		}
	}
	return kept
}

// cloned returns the settings of a clone that the inventory lacks.
func cloned(g api.Guest, name string, from, to api.Host, opt CloneOptions) (api.Guest, error) {
	g.Name, g.Context, g.Hostname = name, 0, opt.Hostname
	g.Volumes, g.Boot.Mark, g.Boot.Depends = nil, "", nil
	n := &g.Network
	n.Ports, n.Forwards, n.Places = nil, nil, nil
	switch {
	case n.Mode == api.ModeOwn && len(opt.Addresses) == 0:
		return g, errors.New("which address is the clone to have? want --address ADDRESS/PREFIX, or the clone in the inventory")
	case n.Mode == api.ModeNAT && len(opt.Addresses) > 0:
		return g, errors.New("--address: in mode nat a guest's address is its host's to choose")
	case len(opt.Addresses) > 0:
		n.Addresses = slices.Clone(opt.Addresses)
	default:
		n.Addresses = ofHost(n.Addresses, from.DefaultAddress, to)
	}
	return g, nil
}

// changeOf returns what of a guest's identity becomes what.
func changeOf(from, to api.Guest) *identity.Change {
	hostname := func(g api.Guest) string {
		if g.Hostname == "" {
			return g.Name
		}
		return g.Hostname
	}
	short := func(name string) string {
		name, _, _ = strings.Cut(name, ".")
		return name
	}
	was, is := hostname(from), hostname(to)
	c := &identity.Change{Host: is, Names: map[string]string{from.Name: is, short(was): short(is), was: is}}
	for i, a := range from.Network.Addresses {
		if i < len(to.Network.Addresses) {
			c.Names[a.Addr().String()] = to.Network.Addresses[i].Addr().String()
		}
	}
	return c
}
