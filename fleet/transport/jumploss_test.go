package transport

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/test/fakesshd"
)

// A jump host that dies gives each host behind it an error that names it, and those that
// are still to be reached another connection: through a chain as well.
func TestJumpHostThatDies(t *testing.T) {
	for _, hops := range []int{1, 2} {
		t.Run(fmt.Sprintf("a chain of %d", hops), func(t *testing.T) {
			var gates []*fakesshd.Server
			var via *Settings
			for range hops {
				gate, hop := startFake(t, fakesshd.Options{Forward: true})
				hop.Name, hop.Via = "gate", via
				gates, via = append(gates, gate), &hop
			}
			begun := make(chan bool)
			f, s := startFake(t, fakesshd.Options{Listen: "0.0.0.0:0", Exec: func(_ *fakesshd.Server, _ string, ch ssh.Channel) uint32 {
				begun <- true
				_, _ = ch.Read(make([]byte, 1)) // until the connection ends
				return 0
			}})
			hosts := manyHosts(t, f, s, 20)
			d := new(Dialer)
			errs := make(chan error, len(hosts))
			for i := range hosts {
				hosts[i].Via = via
				c, err := d.Dial(t.Context(), hosts[i])
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				go func() {
					_, err := c.Exec(t.Context(), "wait", readerFunc(func([]byte) (int, error) { select {} }), nil, nil)
					errs <- err
				}()
				<-begun
			}
			for _, gate := range gates {
				if n := gate.Logins.Load(); n != 1 {
					t.Errorf("%d logins at a jump host", n)
				}
			}
			gates[0].Cut()
			for range hosts {
				err := <-errs
				if !Unreachable(err) || !strings.Contains(err.Error(), "connection lost: the connection to the jump host 127.0.0.1 was lost") {
					t.Errorf("error %v", err)
				}
				wantKind(t, err, "lost")
			}
			// The others get a new connection to it: one for all.
			var all errgroup.Group
			all.SetLimit(8)
			for _, s := range hosts {
				all.Go(func() error {
					c, err := d.Dial(t.Context(), s)
					if err == nil {
						defer c.Close()
					}
					return err
				})
			}
			held, err := d.Dial(t.Context(), hosts[0])
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if err := all.Wait(); err != nil {
				t.Error(err)
			}
			if n := gates[0].Logins.Load(); n > 3 {
				t.Errorf("%d logins at the jump host that was lost", n)
			}
		})
	}
}

// A jump host that dies during the handshakes of those behind it costs none of them.
func TestJumpHostThatDiesDuringHandshakes(t *testing.T) {
	gate, hop := startFake(t, fakesshd.Options{Forward: true})
	f, s := startFake(t, fakesshd.Options{Listen: "0.0.0.0:0"})
	hosts := manyHosts(t, f, s, 60)
	for i := range hosts {
		hosts[i].Via = &hop
	}
	go func() {
		for f.Logins.Load() < 5 { // some are reached, others on the way
			time.Sleep(time.Millisecond) // the fake counts, and signals nothing
		}
		gate.Cut()
	}()
	if reached := dialAll(t, new(Dialer), hosts, 32); reached != len(hosts) {
		t.Errorf("%d of %d were reached", reached, len(hosts))
	}
}
