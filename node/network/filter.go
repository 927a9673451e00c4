package network

import (
	"context"
	"maps"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
)

// Publish makes way for a guest that runs in the host's packet filter: for its
// forwards, or around its own addresses, whose ports others' forwards would take.
func Publish(ctx context.Context, g *Guest) error {
	return nat.Add(ctx, g.Notes.Mode(g.Network.Mode).filter(g.Guest), wanted(g.Others))
}

// PublishAll makes the host's packet filter what the running guests need.
func PublishAll(ctx context.Context, guests Others) error { return nat.Sync(ctx, wanted(guests)) }

// wanted returns what the host's packet filter has to hold: the running guests
// with private networks, and the addresses that belong to the others.
func wanted(guests Others) func(context.Context) (nat.Want, error) {
	return func(context.Context) (nat.Want, error) {
		var want nat.Want
		on, err := guests.Networks()
		if err != nil {
			return want, err
		}
		for _, name := range slices.Sorted(maps.Keys(on)) {
			g := on[name]
			g.Name = name
			w := Notes{}.Mode(g.Network.Mode).filter(g)
			want.Guests, want.Reserved = append(want.Guests, w.Guests...), append(want.Reserved, w.Reserved...)
		}
		return want, nil
	}
}

// natGuest returns a guest as node/nat has it.
func natGuest(g api.Guest) nat.Guest {
	return nat.Guest{XID: g.Context, Name: g.Name, Forwards: g.Network.Forwards, Metadata: g.Network.Metadata}
}
