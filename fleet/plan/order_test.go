package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/node/api"
)

// The order is the plain one: the first that takes from nobody who is left, and
// where all do, the first.
func TestOrderIsThatOfComparingEachWithEach(t *testing.T) {
	random := func(name string) *api.Guest {
		g := &api.Guest{Name: name, Context: rand.IntN(8)}
		g.Network.Mode = []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT}[rand.IntN(3)]
		g.Network.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rand.IntN(6))}), 24)}
		for range rand.IntN(3) {
			first := 1 + uint16(rand.IntN(200))
			g.Network.Ports = append(g.Network.Ports, port.Range{Proto: port.TCP, First: first, Last: first + uint16(rand.IntN(2)*rand.IntN(150))})
		}
		return g
	}
	for range 2000 {
		var all []change
		for i := range 1 + rand.IntN(7) {
			name := fmt.Sprint("g", i)
			c := change{steps: []api.Step{{Name: name}}}
			if rand.IntN(4) > 0 {
				c.old = random(name)
			}
			if c.old == nil || rand.IntN(4) > 0 {
				c.new = random(name)
			}
			if c.old != nil && rand.IntN(3) == 0 {
				c.runs = random(name)
			}
			all = append(all, c)
		}
		var p, plain Plan
		p.order(all)
		plain.orderPlainly(all)
		if got, want := written(p), written(plain); !slices.Equal(got, want) {
			t.Fatalf("%+v\nare laid as %q, want %q", all, got, want)
		}
	}
}

func (p *Plan) orderPlainly(rest []change) {
	rest = slices.Clone(rest)
	takes := func(c change, others []change) bool {
		for _, o := range others {
			for _, has := range o.before() {
				for cl := range has.Claims() {
					if o.steps[0].Name != c.steps[0].Name && slices.ContainsFunc(c.gains(), cl.Conflicts) {
						return true
					}
				}
			}
		}
		return false
	}
	var wave []change
	for len(rest) > 0 {
		next := max(slices.IndexFunc(rest, func(c change) bool { return !takes(c, rest) }), 0)
		c := rest[next]
		rest = slices.Delete(rest, next, next+1)
		if takes(c, wave) {
			p.Cuts = append(p.Cuts, len(p.Steps))
			wave = nil
		}
		wave = append(wave, c)
		p.Steps = append(p.Steps, c.steps...)
	}
}

// thousand guests of a host, of all modes, that are there with other ports.
func thousand() (*inventory.Host, api.State) {
	host := &inventory.Host{Name: "web01"}
	s := state()
	for i := range 1000 {
		name := fmt.Sprintf("g%04d", i)
		p := uint16(2000 + i)
		want, have := www(named(name, 2000+i, tcp(p))), there(isNamed(name, 2000+i, tcp(p+5000)))
		switch i % 3 {
		case 1:
			want.Network.Mode, want.HostAddress, want.Network.Ports = inventory.NAT, false, nil
			want.Network.Forwards = []port.Forward{{Proto: port.TCP, Host: p, Guest: 80}}
			have.Network = api.Network{Mode: api.ModeNAT, Forwards: []port.Forward{{Proto: port.TCP, Host: p + 5000, Guest: 80}}}
		case 2:
			address := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 16)
			want.Network.Mode, want.HostAddress, want.Network.Ports, want.Network.Addresses, want.Network.Dev = inventory.Own, false, nil, []netip.Prefix{address}, "eth0"
			have.Network = api.Network{Mode: api.ModeOwn, Addresses: want.Network.Addresses, Dev: "eth1"}
		}
		host.Guests = append(host.Guests, want)
		s.Guests = append(s.Guests, have)
	}
	return host, s
}

func BenchmarkPlanOfAThousandGuests(b *testing.B) {
	host, s := thousand()
	for b.Loop() {
		if p := Make(host, s, api.FilesAnswer{}, Rules{Image: images}); len(p.Steps) < 1000 {
			b.Fatalf("%d steps, %d refused", len(p.Steps), len(p.Refused))
		}
	}
}
