package fleet

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/inventory"
)

// settings returns the settings of the connection to a host.
func (a *Access) settings(h *inventory.Host) (transport.Settings, error) {
	return a.route(h, nil)
}

// route returns the settings of a host with those of its bastions; behind are the hosts
// that are reached through it.
func (a *Access) route(h *inventory.Host, behind []*inventory.Host) (transport.Settings, error) {
	s := transport.Settings{
		Name:           h.Name,
		Address:        h.Address,
		Port:           h.Port,
		User:           cmp.Or(a.User, h.SSH.User),
		Identity:       cmp.Or(a.Identity, h.SSH.Identity),
		KnownHosts:     cmp.Or(a.KnownHosts, h.SSH.KnownHosts),
		HostKeyAlias:   h.SSH.HostKeyAlias,
		Become:         a.Become || h.Become,
		ConnectTimeout: a.ConnectTimeout,
	}
	jump := cmp.Or(a.Jump, h.SSH.Jump)
	hops, err := transport.ParseJump(jump)
	if err != nil {
		return s, fmt.Errorf("host %s: %w", h.Name, err)
	}
	for i, hop := range hops {
		bastion := a.hopHost(hop)
		switch {
		case bastion == nil:
			s.Via = hop.Settings(s, s.Via)
			continue
		case bastion == h:
			// What all hosts jump through is itself reached by what is before it.
			return s, nil
		}
		for j, other := range behind {
			if other == bastion {
				return s, fmt.Errorf("host %s: jump %s: %s is reached through %s itself: give one of them jump: none",
					h.Name, jump, bastion.Name, h.Name+names(behind[:j]))
			}
		}
		through, err := a.route(bastion, append([]*inventory.Host{h}, behind...))
		if err != nil {
			return s, err
		}
		if i > 0 { // the jump names the route to it
			through.Via = s.Via
		}
		through.Name, through.Become = "jump host "+bastion.Name, false
		through.User = cmp.Or(hop.User, through.User)
		through.Port = cmp.Or(hop.Port, through.Port)
		s.Via = &through
	}
	return s, nil
}

func names(hosts []*inventory.Host) string {
	var s strings.Builder
	for _, h := range hosts {
		s.WriteString(", " + h.Name)
	}
	return s.String()
}

// hopHost returns the host of the inventory that a jump names, or nil.
func (a *Access) hopHost(hop transport.Hop) *inventory.Host {
	for _, h := range a.Hosts {
		if strings.EqualFold(h.Name, hop.Address) {
			return h
		}
	}
	for _, h := range a.Hosts {
		if strings.EqualFold(h.Address, hop.Address) && h.Port == cmp.Or(hop.Port, h.Port) {
			return h
		}
	}
	return nil
}

// Verify returns what on this machine would prevent a connection to hosts, such as a
// missing key file. It connects to none of them.
func (a *Access) Verify(ctx context.Context, hosts []*inventory.Host) error {
	seen := map[string]bool{}
	for _, h := range hosts {
		s, err := a.settings(h)
		if err != nil {
			return err
		}
		files := ""
		for v := &s; v != nil; v = v.Via {
			files += v.Identity + "\x00" + v.KnownHosts + "\x00"
		}
		if seen[files] {
			continue
		}
		seen[files] = true
		if err := a.dialer.Check(ctx, s); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return nil
}
