package fleet

import (
	"cmp"
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/inventory"
)

// HostKeyPolicy is what to do about a host key that known_hosts does not have. One that
// has changed is always refused.
type HostKeyPolicy string

// Policies for unknown host keys.
const (
	AskHostKey    HostKeyPolicy = "ask"        // show it before the run, and ask whether to add it
	AcceptHostKey HostKeyPolicy = "accept-new" // add it
	RefuseHostKey HostKeyPolicy = "strict"     // refuse the host
)

// HostKeyPolicies returns the names of all policies.
func HostKeyPolicies() []string {
	return []string{string(AskHostKey), string(AcceptHostKey), string(RefuseHostKey)}
}

// hostKeyPolicy returns the policy for a host: that of the flag, of the inventory or of
// ssh_config (StrictHostKeyChecking). Where nobody can be asked, asking is refusing.
func (a *Access) hostKeyPolicy(h *inventory.Host, checking string) HostKeyPolicy {
	policy := cmp.Or(a.HostKey, HostKeyPolicy(h.SSH.HostKey))
	if policy == "" {
		switch checking {
		case "yes", "true":
			policy = RefuseHostKey
		case "no", "off", "false", "accept-new":
			policy = AcceptHostKey
		default:
			policy = AskHostKey
		}
	}
	if policy == AskHostKey && !a.CanAsk {
		policy = RefuseHostKey
	}
	return policy
}

// AcceptUnknown adds host keys to known_hosts that it does not have, by the policies of
// their hosts. Only hosts of which known_hosts has no key at all, or that are behind such
// a jump host, are asked for their key. confirm is called with the keys that somebody
// has to accept, all at once; hosts behind a jump host whose key is new come in another
// round. It returns those that were added without a question.
//
// A host that cannot be asked is left alone: the run itself will say why.
func (a *Access) AcceptUnknown(ctx context.Context, hosts []*inventory.Host, forks int, confirm func([]HostKey) error) (added []HostKey, err error) {
	all, err := a.allSettings(ctx, hosts)
	if err != nil {
		return nil, err
	}
	var unknown []*inventory.Host
	for i, h := range hosts {
		for s := &all[i]; s != nil; s = s.Via {
			if s.HostKeys.New && !a.transport().Knows(*s) {
				unknown = append(unknown, h)
				break
			}
		}
	}
	if unknown == nil {
		return nil, nil
	}
	_, _, err = a.AcceptKeys(ctx, unknown, forks, func(fresh []HostKey) ([]HostKey, error) {
		fresh = slices.DeleteFunc(fresh, func(k HostKey) bool { return k.Policy == RefuseHostKey })
		asked := slices.DeleteFunc(slices.Clone(fresh), func(k HostKey) bool { return k.Policy != AskHostKey })
		if len(asked) > 0 {
			if err := confirm(asked); err != nil {
				return nil, err
			}
		}
		for _, k := range fresh {
			if k.Policy == AcceptHostKey {
				added = append(added, k)
			}
		}
		return fresh, nil
	})
	return added, err
}

// policyOf returns the policy that settings carry, for keys that were read by them.
func policyOf(s transport.Settings) HostKeyPolicy {
	switch {
	case !s.HostKeys.New:
		return RefuseHostKey
	case s.HostKeys.Ask:
		return AskHostKey
	}
	return AcceptHostKey
}

// nameOthers adds to each new key the other hosts that show the same one.
func nameOthers(fresh []HostKey) {
	hosts := map[string][]string{}
	for _, k := range fresh {
		hosts[k.Fingerprint] = append(hosts[k.Fingerprint], k.Host)
	}
	for i, k := range fresh {
		others := slices.Clone(k.unknown.Others)
		for _, name := range hosts[k.Fingerprint] {
			if name != k.Host && !slices.Contains(others, name) {
				others = append(others, name)
			}
		}
		fresh[i].Others = others
	}
}
