package fleet

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/fleet/sshconfig"
	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/inventory"
)

// settings returns the settings of the connection to a host.
func (a *Access) settings(ctx context.Context, h *inventory.Host) (transport.Settings, error) {
	return a.route(ctx, h, nil)
}

// allSettings returns the settings of many hosts. It runs ssh -G for several at a time.
func (a *Access) allSettings(ctx context.Context, hosts []*inventory.Host) ([]transport.Settings, error) {
	all := make([]transport.Settings, len(hosts))
	var group errgroup.Group
	group.SetLimit(2 * runtime.GOMAXPROCS(0))
	for i, h := range hosts {
		group.Go(func() (err error) {
			all[i], err = a.settings(ctx, h)
			return err
		})
	}
	return all, group.Wait()
}

// givenPort returns the port that the inventory gives for a host, or 0 if ssh_config
// may give one.
func givenPort(h *inventory.Host) int {
	if h.Port != 22 {
		return h.Port
	}
	return h.SSH.Port
}

// explicit returns the settings that flags and the inventory give.
func (a *Access) explicit(h *inventory.Host) transport.Settings {
	return transport.Settings{
		Name:           h.Name,
		Port:           givenPort(h),
		User:           cmp.Or(a.User, h.SSH.User),
		Identity:       cmp.Or(a.Identity, h.SSH.Identity),
		KnownHosts:     cmp.Or(a.KnownHosts, h.SSH.KnownHosts),
		HostKeyAlias:   h.SSH.HostKeyAlias,
		Become:         a.Become || h.Become,
		BecomeMethod:   cmp.Or(a.BecomeMethod, h.SSH.BecomeMethod),
		ConnectTimeout: a.ConnectTimeout,
	}
}

// route returns the settings of a host with those of its bastions; behind are the hosts
// that are reached through it.
func (a *Access) route(ctx context.Context, h *inventory.Host, behind []*inventory.Host) (transport.Settings, error) {
	given := a.explicit(h)
	s := given
	o, err := a.lookup(ctx, h.SSH.Config, sshconfig.Query{Host: h.Address, User: s.User, Port: s.Port, DefaultUser: defaultUser})
	if err == nil {
		err = a.fill(&s, o, h.Address)
	}
	if err != nil {
		return s, fmt.Errorf("host %s: %w", h.Name, err)
	}
	policy := a.hostKeyPolicy(h, o.Value("stricthostkeychecking"))
	s.HostKeys.New, s.HostKeys.Ask = policy != RefuseHostKey, policy == AskHostKey
	jump := cmp.Or(a.Jump, h.SSH.Jump, o.Value("proxyjump"))
	if a.Jump != "" || h.SSH.Jump != "" {
		s.ProxyCommand = ""
	}
	hops, err := transport.ParseJump(jump)
	if err != nil {
		return s, fmt.Errorf("host %s: %w", h.Name, err)
	}
	for i, hop := range hops {
		bastion := a.hopHost(hop)
		switch {
		case bastion == nil:
			if s.Via, err = a.hop(ctx, h, given, hop, s.Via, 1); err != nil {
				return s, fmt.Errorf("host %s: jump host %s: %w", h.Name, hop.Address, err)
			}
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
		through, err := a.route(ctx, bastion, append([]*inventory.Host{h}, behind...))
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

// defaultUser is the user to log in as if nothing else is set.
const defaultUser = "root"

// maxHops bounds jump hosts of ssh_config that have jump hosts.
const maxHops = 8

// hop returns the settings of a jump host that is not in the inventory. Settings that
// the jump does not give are those of ssh_config, or else those of the host behind it.
func (a *Access) hop(ctx context.Context, h *inventory.Host, behind transport.Settings, hop transport.Hop, via *transport.Settings, depth int) (*transport.Settings, error) {
	q := sshconfig.Query{Host: hop.Address, User: hop.User, Port: hop.Port, DefaultUser: cmp.Or(behind.User, defaultUser)}
	o, err := a.lookup(ctx, h.SSH.Config, q)
	if err != nil {
		return nil, err
	}
	if o.Value("user") != "" {
		behind.User = o.Value("user")
	}
	if o.Value("identityfile") != "" {
		behind.Identity = ""
	}
	if o.Value("userknownhostsfile") != "" {
		behind.KnownHosts = ""
	}
	s := hop.Settings(behind, via)
	s.Address = ""
	if err := a.fill(s, o, hop.Address); err != nil {
		return nil, err
	}
	policy := a.hostKeyPolicy(h, o.Value("stricthostkeychecking"))
	s.HostKeys.New, s.HostKeys.Ask = policy != RefuseHostKey, policy == AskHostKey
	if via != nil {
		return s, nil
	}
	// ssh_config may have a jump host for the first one of the route.
	hops, err := transport.ParseJump(o.Value("proxyjump"))
	if err != nil {
		return nil, err
	}
	for _, before := range hops {
		if before.Address == hop.Address {
			return s, nil // of "Host *", which includes the jump host
		}
		if depth == maxHops {
			return nil, fmt.Errorf("ssh_config: more than %d jump hosts, each behind another", maxHops)
		}
		if s.Via, err = a.hop(ctx, h, behind, before, s.Via, depth+1); err != nil {
			return nil, err
		}
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
	all, err := a.allSettings(ctx, hosts)
	if err != nil {
		return err
	}
	if err := sameMachine(hosts, all); err != nil {
		return err
	}
	for i, h := range hosts {
		s := all[i]
		files := ""
		for v := &s; v != nil; v = v.Via {
			files += fmt.Sprintf("%q %q %#v %#v %#v ", v.Identity, v.KnownHosts, v.Keys, v.HostKeys, v.Algorithms)
		}
		if seen[files] {
			continue
		}
		seen[files] = true
		if err := a.transport().Check(ctx, s); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return nil
}

// sameMachine returns an error if ssh_config leads two hosts to one sshd: two sessions
// would carry out two plans on one machine. The inventory refuses equal addresses for
// the same reason.
func sameMachine(hosts []*inventory.Host, all []transport.Settings) error {
	first := map[string]string{}
	for i, h := range hosts {
		route := all[i].Route()
		if other := first[route]; other != "" && other != h.Name {
			return fmt.Errorf("hosts %s and %s are both at %s by ssh_config: leave one of them out", other, h.Name, route)
		}
		first[route] = h.Name
	}
	return nil
}
