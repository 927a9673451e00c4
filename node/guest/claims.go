package guest

import (
	"fmt"
	"slices"

	"github.com/vsfleet/vsfleet/internal/claim"
	"github.com/vsfleet/vsfleet/node/api"
)

// conflict returns an error naming what g wants if another guest of the host already
// has it. Two guests that claim the same thing are refused when they are configured,
// not when one of them binds.
func conflict(g *api.Guest, others ...*api.Guest) error {
	mine := slices.Collect(g.Claims())
	for _, o := range others {
		if o.Name == g.Name {
			continue
		}
		for theirs := range o.Claims() {
			for _, m := range mine {
				if m.Conflicts(theirs) {
					return conflictError(m, theirs, o.Name)
				}
			}
		}
	}
	return nil
}

// conflictError returns the error that names the conflicting claim and its owner.
func conflictError(mine, theirs claim.Claim, owner string) error {
	switch {
	case mine.Kind == claim.Context:
		return fmt.Errorf("context %d is guest %s's", mine.Context, owner)
	case mine.Kind == claim.Forward && theirs.Kind == claim.Own:
		return fmt.Errorf("forward %s: address %s is guest %s's own: forward from one of the host's", mine.Forward, theirs.At, owner)
	case mine.Kind == claim.Own && theirs.Kind == claim.Forward:
		return fmt.Errorf("address %s is forwarded to guest %s (%s): a guest's own address cannot be", mine.At, owner, theirs.Forward)
	case mine.Kind == claim.Own || theirs.Kind == claim.Own:
		return fmt.Errorf("address %s is guest %s's (to use one address with several guests, give each mode shared and its ports)", mine.At, owner)
	case mine.Kind == claim.Forward && theirs.Kind == claim.Forward:
		return fmt.Errorf("port %s of the host is forwarded to guest %s (%s)", mine.Ports, owner, theirs.Forward)
	case theirs.Kind == claim.Forward:
		return fmt.Errorf("port %s is forwarded to guest %s (%s)", mine.Ports, owner, theirs.Forward)
	case mine.Kind == claim.Forward:
		return fmt.Errorf("port %s is guest %s's on the address that it shares (%s)", mine.Ports, owner, theirs.Ports)
	}
	return fmt.Errorf("port %s of the shared address is guest %s's (%s)", mine.Ports, owner, theirs.Ports)
}
