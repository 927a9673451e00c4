package nat

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestMetadataIsOutOfReach puts the metadata services of clouds where a guest could
// reach them: beyond the host, and on the host itself.
func TestMetadataIsOutOfReach(t *testing.T) {
	onHost(t, func(t *testing.T) {
		out := outside(t)
		a, b := guest(t, "a", 666), guest(t, "b", 667)
		must(t, (*machine)(nil).address("lo", "169.254.170.2", "fd00:ec2::23"))
		out.do(t, func() error { return out.address("lo", "169.254.169.254", "168.63.129.16", "fd00:ec2::254") })
		for _, to := range []string{"169.254.169.254", "168.63.129.16", "fd00:ec2::254"} {
			p := netip.MustParseAddr(to)
			gw := outside4
			if p.Is6() {
				gw = outside6
			}
			must(t, netlink.RouteAdd(&netlink.Route{Dst: ipNet(single(p)), Gw: net.ParseIP(gw)}))
		}
		for _, at := range []string{"169.254.169.254:80", "168.63.129.16:80", "[fd00:ec2::254]:80", "168.63.129.16:53", "169.254.169.254:123"} {
			out.serve(t, "cloud", at)
		}
		for _, at := range []string{"169.254.170.2:80", "[fd00:ec2::23]:80"} {
			(*machine)(nil).serve(t, "near", at)
		}
		guests := []Guest{{XID: 666, Name: "a", Forwards: forwards(t, "2222:22/tcp")}, {XID: 667, Name: "b", Metadata: true}}
		syncGuests(t, guests...)
		answers := map[string]string{
			"169.254.169.254": "cloud for " + host4, "168.63.129.16": "cloud for " + host4, "fd00:ec2::254": "cloud for " + host6,
			"169.254.170.2": "near for 100.64.2.155", "fd00:ec2::23": "near for fd76:7365:7276:1cad::29b",
		}
		for at, want := range answers {
			start := time.Now()
			for _, network := range []string{"tcp", "udp"} {
				if got := a.ask(network, net.JoinHostPort(at, "80")); got[:7] != "nothing" {
					t.Errorf("%s by %s: %s", at, network, got)
				}
			}
			// Otherwise a program would hang for minutes.
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%s is refused after %v", at, took)
			}
			b.wants(t, "where it is allowed", net.JoinHostPort(at, "80"), want)
		}
		a.wants(t, "a resolver there", "168.63.129.16:53", "cloud for "+host4)
		if got := a.ask("udp", "169.254.169.254:123"); got != "cloud for "+host4 {
			t.Errorf("a clock there: %s", got)
		}
		out.do(t, func() error { // Azure's health probes
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("168.63.129.16")}, Timeout: 5 * time.Second}
			c, err := d.Dial("tcp", host4+":2222")
			if err != nil {
				return err
			}
			return c.Close()
		})
		shown, err := Show(t.Context())
		must(t, err)
		if len(shown) != 2 || shown[0].Metadata || !shown[1].Metadata {
			t.Errorf("Show says of metadata: %+v", shown)
		}
		// Without the protection the service is reachable.
		nft(t, "flush chain inet vservers honest; add rule inet vservers honest accept")
		a.wants(t, "without the rules", "169.254.169.254:80", "cloud for "+host4)
	})
}
