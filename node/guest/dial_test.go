package guest

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// Dial reaches what a guest's own programs reach as localhost, in every mode, and not
// what listens on the host's.
func TestDialReachesTheGuestsLocalhost(t *testing.T) {
	h := host(t)
	ours, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer ours.Close()
	hostPort := netip.MustParseAddrPort(ours.Addr().String()).Port()
	before := traces(t)
	for i, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			g := inMode(mode, "dialed", 150+i, "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/etc")
			must(t, h.Create(t.Context(), g))
			must(t, h.Start(t.Context(), g.Name, Options{}))
			defer func() { must(t, h.Delete(t.Context(), g.Name)) }()
			service := netip.MustParseAddrPort("127.0.0.1:8080")
			got := fetchOver(t, "the guest's 127.0.0.1:8080", func() (net.Conn, error) {
				conn, err := h.Dial(t.Context(), g.Name, service)
				if err != nil {
					return nil, err // not a nil *TCPConn, which would be a Conn
				}
				return conn, nil
			})
			if !strings.Contains(got, "root:") {
				t.Errorf("it answered %q", got)
			}
			for _, to := range []string{fmt.Sprintf("127.0.0.1:%d", hostPort), "127.0.0.1:8081", "[::1]:8081"} {
				conn, err := h.Dial(t.Context(), g.Name, netip.MustParseAddrPort(to))
				if err == nil {
					conn.Close()
					t.Errorf("connected to %s", to)
				} else if !strings.Contains(err.Error(), "connect to "+to) {
					t.Errorf("%s: %v", to, err)
				}
			}
		})
	}
	if _, err := h.Dial(t.Context(), "dialed", netip.MustParseAddrPort("127.0.0.1:8080")); err == nil {
		t.Error("a guest that is not there was dialed")
	}
	if after := traces(t); after != before {
		t.Errorf("changed:\nbefore %s\nafter  %s", before, after)
	}
}
