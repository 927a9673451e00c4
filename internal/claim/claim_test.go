package claim

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/vsfleet/vsfleet/internal/port"
)

func at(addr string) Place { return At(netip.MustParseAddr(addr)) }

func ports(t *testing.T, text string) port.Range {
	t.Helper()
	r, err := port.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func forward(t *testing.T, text string) Claim {
	t.Helper()
	f, err := port.ParseForward(text)
	if err != nil {
		t.Fatal(err)
	}
	return OfForward(At(f.Addr), f)
}

func TestConflicts(t *testing.T) {
	a, b := at("192.0.2.1"), at("192.0.2.2")
	port := func(p Place, text string) Claim { return OfPort(p, ports(t, text)) }
	for _, row := range []struct {
		name string
		x, y Claim
		want bool
	}{
		{"one context", OfContext(2), OfContext(2), true},
		{"two contexts", OfContext(2), OfContext(3), false},
		{"a context and an address", OfContext(2), OfAddress(a), false},

		{"one address that both own", OfAddress(a), OfAddress(a), true},
		{"two addresses", OfAddress(a), OfAddress(b), false},
		{"an address that one owns and one shares", OfAddress(a), OfShare(a), true},
		{"the host's own address", OfAddress(Host), OfShare(Host), true},
		{"one address that both share", OfShare(a), OfShare(a), false},

		{"one port of one address", port(a, "80"), port(a, "80"), true},
		{"one port of two addresses", port(a, "80"), port(b, "80"), false},
		{"one port of two protocols", port(a, "53/tcp"), port(a, "53/udp"), false},
		{"a port in a range", port(a, "8005"), port(a, "8000-8010"), true},
		{"a port behind a range", port(a, "8011"), port(a, "8000-8010"), false},
		{"one port of the host's address", port(Host, "80"), port(Host, "80"), true},

		{"one port that is forwarded twice", forward(t, "2222:22"), forward(t, "2222:2022"), true},
		{"one port of two protocols that is forwarded", forward(t, "53:53/tcp"), forward(t, "53:53/udp"), false},
		{"forwards from two addresses", forward(t, "192.0.2.1:2222:22"), forward(t, "192.0.2.2:2222:22"), false},
		{"forwards from two families", forward(t, "192.0.2.1:2222:22"), forward(t, "[2001:db8::1]:2222:22"), false},
		{"a forward from every address and one from one", forward(t, "2222:22"), forward(t, "192.0.2.1:2222:22"), true},
		{"a forward from every address of a port that is owned", forward(t, "80:80"), port(a, "80"), true},
		{"a forward from every address of a port of the host's address", forward(t, "80:80"), port(Host, "80"), true},
		{"a forward from another address than the port's", forward(t, "192.0.2.2:80:80"), port(a, "80"), false},
		{"a forward that leads to a port which another has", forward(t, "8080:80"), port(a, "80"), false},

		{"a forward from an address that another owns", forward(t, "192.0.2.1:80:80"), OfAddress(a), true},
		{"a forward from every address leaves out those that guests own", forward(t, "80:80"), OfAddress(a), false},
		{"a forward from an address that another shares", forward(t, "192.0.2.1:80:80"), OfShare(a), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.x.Conflicts(row.y) != row.want || row.y.Conflicts(row.x) != row.want {
				t.Errorf("conflict: %v, and %v the other way round; want %v", row.x.Conflicts(row.y), row.y.Conflicts(row.x), row.want)
			}
		})
	}
}

// A table finds the same conflicts as comparing each claim with each.
func TestTableFindsAllConflicts(t *testing.T) {
	random := func() Claim {
		place := []Place{Everywhere, Host, at("192.0.2.1"), at("192.0.2.2")}[rand.IntN(4)]
		first := 1 + uint16(rand.IntN(300))
		r := port.Range{Proto: []port.Proto{port.TCP, port.UDP}[rand.IntN(2)], First: first, Last: first + uint16(rand.IntN(2)*rand.IntN(200))}
		switch rand.IntN(5) {
		case 0:
			return OfContext(2 + rand.IntN(10))
		case 1:
			return OfAddress(place)
		case 2:
			return OfShare(place)
		case 3:
			return OfPort(place, r)
		default:
			return OfForward(place, port.Forward{Host: first, Guest: 22, Proto: r.Proto})
		}
	}
	for range 500 {
		var table Table[int]
		var all []Claim
		for i := range 40 {
			c := random()
			var want, got []int
			for i, o := range all {
				if c.Conflicts(o) {
					want = append(want, i)
				}
			}
			for _, e := range table.Conflicts(c) {
				got = append(got, e.Owner)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%+v conflicts with %v of %+v, want %v", c, got, all, want)
			}
			table.Add(i, c)
			all = append(all, c)
		}
	}
}

// A host may have a thousand guests: each claim is compared only with the few that may
// conflict with it.
func TestClaimsAreComparedWithFewOthers(t *testing.T) {
	claims := func(i int, first uint16) []Claim {
		own := At(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
		one := port.Range{Proto: port.TCP, First: first + uint16(i), Last: first + uint16(i)}
		list := []Claim{OfContext(2000 + i)}
		switch i % 4 {
		case 0:
			return append(list, OfShare(Host), OfPort(Host, one))
		case 1:
			return append(list, OfForward(Everywhere, port.Forward{Host: one.First, Guest: 80, Proto: port.TCP}))
		case 2: // a web server with an address for each
			return append(list, OfShare(own), OfPort(own, port.Range{Proto: port.TCP, First: 80, Last: 80}))
		default:
			return append(list, OfAddress(own))
		}
	}
	const guests = 1000
	var table Table[int]
	for i := range guests {
		for _, c := range claims(i, 7000) {
			table.Add(i, c)
		}
	}
	for i := range guests {
		for _, c := range claims(i, 2000) {
			table.Conflicts(c)
		}
	}
	if most := 100 * guests; table.compared > most {
		t.Errorf("%d comparisons of %d guests, want %d at most", table.compared, guests, most)
	}
}
