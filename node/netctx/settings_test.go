package netctx

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/internal/port"
)

func TestLoopbackHoldsTheContext(t *testing.T) {
	for _, c := range []struct {
		xid      int
		four, ip string
	}{
		{2, "127.0.2.1", "fd76:7365:7276:6572::2"},
		{666, "127.2.154.1", "fd76:7365:7276:6572::29a"},
		{49151, "127.191.255.1", "fd76:7365:7276:6572::bfff"},
	} {
		if got := Loopback(c.xid).String(); got != c.four {
			t.Errorf("%d: %s, want %s", c.xid, got, c.four)
		}
		if got := Loopback6(c.xid).String(); got != c.ip {
			t.Errorf("%d: %s, want %s", c.xid, got, c.ip)
		}
	}
}

func TestSettingsTellTheSpec(t *testing.T) {
	for _, c := range []struct {
		name string
		in   Spec
		want []port.Range
	}{
		{"all ports", www(), nil},
		{"ports of both protocols", www("80/tcp", "443/tcp", "53/udp"), www("80/tcp", "443/tcp", "53/udp").Ports},
		{"ranges that touch and overlap are one", www("80/tcp", "81-90/tcp", "85-100/tcp", "80/udp"), www("80-100/tcp", "80/udp").Ports},
		{"the last port", www("65535/tcp", "65534/tcp"), www("65534-65535/tcp").Ports},
		{"IPv6 alone", spec(2, []string{"1/tcp"}, netip.MustParsePrefix("2001:db8::1/128")), www("1/tcp").Ports},
	} {
		t.Run(c.name, func(t *testing.T) {
			set, err := c.in.settings(7)
			if err != nil {
				t.Fatal(err)
			}
			got := set.spec()
			c.in.Ports = c.want
			if !reflect.DeepEqual(got, c.in) {
				t.Errorf("got  %+v\nwant %+v", got, c.in)
			}
		})
	}
}

func TestSpecsThatCannotBe(t *testing.T) {
	many := make([]string, 0, maxPorts+1)
	for i := range maxPorts + 1 {
		many = append(many, fmt.Sprint(2*i+1))
	}
	addrs := make([]netip.Prefix, 0, maxAddresses+1)
	for i := range maxAddresses + 1 {
		addrs = append(addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 24))
	}
	for _, c := range []struct {
		name string
		spec Spec
		want string
	}{
		{"no address", Spec{XID: 2}, "no address"},
		{"the host", spec(0, nil, wwwAddr), "want 1 to 65535"},
		{"a context beyond 16 bits", spec(65536, nil, wwwAddr), "want 1 to 65535"},
		{"the wildcard", spec(2, nil, netip.MustParsePrefix("0.0.0.0/0")), "no address that a guest can own"},
		{"localhost", spec(2, nil, netip.MustParsePrefix("127.0.0.1/8")), "no address that a guest can own"},
		{"multicast", spec(2, nil, netip.MustParsePrefix("ff02::1/128")), "no address that a guest can own"},
		{"IPv4 as IPv6", spec(2, nil, netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.1"), 120)), "no address that a guest can own"},
		{"nothing at all", spec(2, nil, netip.Prefix{}), "no address that a guest can own"},
		{"too many addresses", spec(2, nil, addrs...), "more than 16"},
		{"too many ports", spec(2, many, wwwAddr), "more than 64"},
		{"port zero", Spec{XID: 2, Addresses: prefixes("192.0.2.1/24"), Ports: []port.Range{{Proto: port.TCP}}}, "no range of ports"},
		{"a protocol without ports", Spec{XID: 2, Addresses: prefixes("192.0.2.1/24"), Ports: []port.Range{{Proto: "icmp", First: 1, Last: 1}}}, "no range of ports"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := c.spec.settings(7); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q in it", err, c.want)
			}
		})
	}
}
