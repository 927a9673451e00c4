package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/fanout"
	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/inventory"
)

// HostKey is the key of a host, or of a bastion on the way to hosts.
type HostKey struct {
	Host        string
	Address     string // as known_hosts has it
	Type        string // "ssh-ed25519"; empty where none was shown
	Fingerprint string // "SHA256:…"
	State       KeyState
	File        string        // KeyNew: to which it would be added
	Others      []string      // KeyNew: other hosts with the same key
	Policy      HostKeyPolicy // of the host
	Err         error         // why it is neither known nor new

	unknown *transport.UnknownKeyError
}

// KeyState is whether known_hosts has a host key.
type KeyState string

// States of host keys.
const (
	KeyKnown   KeyState = "known"
	KeyNew     KeyState = "new"     // it has no key of the host
	KeyChanged KeyState = "changed" // it has another one
	KeyHidden  KeyState = "hidden"  // the host is behind a bastion whose key is not known
	KeyMissing KeyState = "missing" // the host did not show one
)

// HostKeys reads the keys of hosts and of the bastions on the way to them. Bastions come
// before the hosts behind them. It logs in only to bastions, and only if their key is
// known.
func (a *Access) HostKeys(ctx context.Context, hosts []*inventory.Host, forks int) ([]HostKey, error) {
	type endpoint struct {
		settings transport.Settings
		via      int // index of the bastion, or -1
	}
	var endpoints []endpoint
	index := map[string]int{}
	all, err := a.allSettings(ctx, hosts)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		var way []transport.Settings
		for s := &s; s != nil; s = s.Via {
			way = append([]transport.Settings{*s}, way...)
		}
		via := -1
		for _, s := range way {
			i, seen := index[s.Route()]
			if !seen {
				i = len(endpoints)
				index[s.Route()] = i
				endpoints = append(endpoints, endpoint{s, via})
			}
			via = i
		}
	}
	keys := make([]HostKey, len(endpoints))
	for {
		var turn []int
		for i, d := range endpoints {
			if keys[i].State == "" && (d.via < 0 || keys[d.via].State == KeyKnown) {
				turn = append(turn, i)
			}
		}
		if turn == nil {
			break
		}
		for _, r := range fanout.Each(ctx, turn, a.questions(forks), func(ctx context.Context, i int) (HostKey, error) {
			k := a.hostKey(ctx, endpoints[i].settings)
			return k, k.Err
		}, fanout.Watch[int, HostKey]{}) {
			if r.Outcome == outcome.NotStarted {
				return nil, context.Cause(ctx)
			}
			keys[r.Host] = r.Value
		}
	}
	for i, d := range endpoints {
		if keys[i].State == "" {
			keys[i] = HostKey{Host: d.settings.Name, Address: d.settings.KnownHostsName(), State: KeyHidden,
				Err: fmt.Errorf("it is behind %s, whose key is not known yet", d.settings.Via.Name)}
		}
	}
	return keys, nil
}

// hostKey reads the key of one host.
func (a *Access) hostKey(ctx context.Context, s transport.Settings) HostKey {
	k := HostKey{Host: strings.TrimPrefix(s.Name, "jump host "), Address: s.KnownHostsName(), Policy: policyOf(s)}
	key, err := a.transport().HostKey(ctx, s)
	var changed *transport.ChangedKeyError
	switch {
	case err == nil:
		k.State = KeyKnown
	case errors.As(err, &k.unknown):
		k.State, k.File, key = KeyNew, k.unknown.File, k.unknown.Key
	case errors.As(err, &changed):
		k.State, k.Err, key = KeyChanged, err, changed.Key
	default:
		k.State, k.Err = KeyMissing, err
	}
	if key != nil {
		k.Type, k.Fingerprint, _ = strings.Cut(transport.KeyString(key), " ")
	}
	return k
}

// Trust adds new keys to the known_hosts files of their hosts.
func (a *Access) Trust(ctx context.Context, keys []HostKey) error {
	var unknown []*transport.UnknownKeyError
	for _, k := range keys {
		if k.unknown != nil {
			unknown = append(unknown, k.unknown)
		}
	}
	return a.transport().Trust(ctx, unknown)
}

// AcceptKeys reads the host keys of hosts, and adds to known_hosts those new ones
// that accept returns. Hosts behind a bastion whose key was added are read in
// another round. It returns the keys of the last round, and which of all were
// added, by [HostKey.Endpoint]. If accept returns an error, AcceptKeys adds nothing more
// and returns it beside the keys.
func (a *Access) AcceptKeys(ctx context.Context, hosts []*inventory.Host, forks int, accept func(fresh []HostKey) ([]HostKey, error)) (keys []HostKey, added map[string]bool, err error) {
	added = map[string]bool{}
	for {
		if keys, err = a.HostKeys(ctx, hosts, forks); err != nil {
			return nil, added, err
		}
		fresh := slices.DeleteFunc(slices.Clone(keys), func(k HostKey) bool { return k.State != KeyNew })
		nameOthers(fresh)
		chosen, err := accept(fresh)
		if err != nil || len(chosen) == 0 {
			return keys, added, err
		}
		if err := a.Trust(ctx, chosen); err != nil {
			return nil, added, err
		}
		for _, k := range chosen {
			added[k.Endpoint()] = true
		}
		if !slices.ContainsFunc(keys, func(k HostKey) bool { return k.State == KeyHidden }) {
			return keys, added, nil
		}
	}
}

// Endpoint names the host and the address that has the key.
func (k HostKey) Endpoint() string { return k.Host + " " + k.Address }

// KeyReport returns the records of keys, and their hosts: those whose key is not accepted
// have failed. added has the endpoints whose keys were added to known_hosts; listed
// means that only keys from a list were accepted.
func KeyReport(keys []HostKey, added map[string]bool, listed bool) ([]report.KeyRecord, []report.Host) {
	var records []report.KeyRecord
	var hosts []report.Host
	for _, k := range keys {
		r := report.KeyRecord{
			Host: k.Host, Address: k.Address, Type: k.Type, Fingerprint: k.Fingerprint, State: string(k.State),
			Added: added[k.Endpoint()], AlsoKnownAs: k.Others,
		}
		h := report.HostOf(k.Host, k.Address, outcome.OK, nil)
		switch {
		case k.Err != nil:
			r.Error = k.Err.Error()
			h = report.HostOf(k.Host, k.Address, outcome.Unreachable, k.Err)
			if k.State == KeyChanged {
				h.Status = outcome.Failed
			}
		case listed && k.State == KeyNew && !r.Added:
			h = report.HostOf(k.Host, "", outcome.Failed, fmt.Errorf("its host key %s %s is none of those to accept", k.Type, k.Fingerprint))
		}
		records, hosts = append(records, r), append(hosts, h)
	}
	return records, hosts
}
