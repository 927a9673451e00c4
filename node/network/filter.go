package network

import (
	"context"
	"maps"
	"slices"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/nat"
)

// Publish updates the host's packet filter for a running guest: for its forwards, or to
// keep others' forwards from taking ports of its own addresses.
func Publish(ctx context.Context, g *Guest) error {
	return nat.Add(ctx, g.Notes.Mode(g.Network.Mode).filter(g.Guest), wanted(g.Others))
}

// PublishAll sets the host's packet filter to what the running guests need.
func PublishAll(ctx context.Context, guests Others) error { return nat.Sync(ctx, wanted(guests)) }

// wanted returns the content of the host's packet filter: the running guests with
// private networks, and the addresses that belong to the others.
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

// natGuest converts a guest to node/nat's form.
func natGuest(g api.Guest) nat.Guest {
	return nat.Guest{XID: g.Context, Name: g.Name, Forwards: g.Network.Forwards, Metadata: g.Network.Metadata}
}
