package fleet

import (
	"cmp"
	"context"
	"slices"

	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/inventory"
)

// HostKeyPolicy says what to do about a host key that is not in known_hosts. A changed
// key is always refused.
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
// ssh_config (StrictHostKeyChecking). If nobody can be asked, it returns RefuseHostKey
// instead of AskHostKey.
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

// AcceptUnknown adds unknown host keys to known_hosts, according to the policies of
// their hosts. It connects only to hosts without any key in known_hosts, and to hosts
// behind such a jump host. confirm is called with all keys that a person has to accept;
// hosts behind a jump host whose key is new follow in another round. AcceptUnknown
// returns the keys that were added without a question.
//
// Hosts that cannot be reached are skipped: the run itself reports why.
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

// policyOf returns the policy in settings.
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
