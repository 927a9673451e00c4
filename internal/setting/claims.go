package setting

import (
	"iter"

	"github.com/vsfleet/vsfleet/internal/claim"
)

// Claims yields what a guest claims on its host, its context first. Package claim has
// the rules for what two guests cannot both have.
func (g *Guest) Claims() iter.Seq[claim.Claim] {
	return func(yield func(claim.Claim) bool) {
		if g.Context != 0 && !yield(claim.OfContext(g.Context)) {
			return
		}
		n := g.Network
		for _, prefix := range n.Addresses {
			at := claim.At(prefix.Addr())
			switch n.Mode {
			case Own:
				if !yield(claim.OfAddress(at)) {
					return
				}
			case Shared:
				if !yield(claim.OfShare(at)) {
					return
				}
				for _, r := range n.Ports {
					if !yield(claim.OfPort(at, r)) {
						return
					}
				}
			}
		}
		for _, f := range n.Forwards {
			if !yield(claim.OfForward(claim.At(f.Addr), f)) {
				return
			}
		}
	}
}
