package transport

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/vsfleet/vsfleet/test/fakesshd"
)

// startFake starts a server of fakesshd, and returns it with the settings that reach it.
func startFake(t testing.TB, o fakesshd.Options) (*fakesshd.Server, Settings) {
	t.Helper()
	f, err := fakesshd.Start(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f, Settings{Name: "web1", Address: "127.0.0.1", Port: f.Port, Identity: f.Identity, KnownHosts: f.KnownHosts}
}

// An sshd that punishes this machine is asked again, seldom, until it does not any more.
func TestPenaltyIsWaitedOut(t *testing.T) {
	f, s := startFake(t, fakesshd.Options{})
	f.Penalise(time.Second)
	var told atomic.Int32
	s.ConnectTimeout = 400 * time.Millisecond // so it may wait for 4.8 s
	d := &Dialer{Waiting: func(host, why string) {
		told.Add(1)
		if host != "web1" || !strings.Contains(why, "PerSourcePenalties") {
			t.Errorf("host %s is said to wait for %q", host, why)
		}
	}}
	const hosts = 40
	var all errgroup.Group
	for range hosts {
		all.Go(func() error {
			c, err := d.Dial(t.Context(), s)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	// Eight at most see each refusal, and pauses are a quarter of a second at least.
	if n := f.Dropped.Load(); n == 0 || n > 40 {
		t.Errorf("%d connections were refused", n)
	}
	if n := told.Load(); n == 0 || n > hosts {
		t.Errorf("%d hosts were said to wait", n)
	}
}

func TestPenaltyWithoutEnd(t *testing.T) {
	f, s := startFake(t, fakesshd.Options{})
	f.Penalise(time.Hour)
	d := new(Dialer)
	s.ConnectTimeout = 100 * time.Millisecond
	for range 2 { // the second host behind the same sshd learns it at once
		_, err := d.Dial(t.Context(), s)
		if err == nil || !Unreachable(err) || !strings.Contains(err.Error(), "Not allowed at this time: it punishes this machine's address for failures (PerSourcePenalties), still after 1.2s") {
			t.Errorf("error %v", err)
		}
		wantKind(t, err, "penalty")
	}
	s.ConnectTimeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (&Dialer{}).Dial(ctx, s); err == nil || Unreachable(err) {
		t.Errorf("interrupted: error %v", err)
	}
}

// manyHosts returns settings of hosts at addresses of their own behind one listener.
func manyHosts(t *testing.T, f *fakesshd.Server, s Settings, n int) []Settings {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known_hosts")
	text := ""
	var list []Settings
	for i := range n {
		one := s
		one.Name = fmt.Sprintf("web%d", i)
		one.Address = fmt.Sprintf("127.1.%d.%d", i/250, i%250+1)
		one.KnownHosts = known
		text += fmt.Sprintf("[%s]:%d %s", one.Address, f.Port, ssh.MarshalAuthorizedKey(f.HostKey.PublicKey()))
		list = append(list, one)
	}
	line, err := os.ReadFile(f.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	write(t, known, text+string(line))
	return list
}

// dialAll connects to hosts, a number of them at a time, and returns how many it reached.
func dialAll(t *testing.T, d *Dialer, hosts []Settings, forks int) (reached int) {
	t.Helper()
	var n atomic.Int32
	var all errgroup.Group
	all.SetLimit(forks)
	for _, s := range hosts {
		all.Go(func() error {
			c, err := d.Dial(t.Context(), s)
			if err != nil {
				t.Error(err)
				return nil
			}
			defer c.Close()
			n.Add(1)
			return nil
		})
	}
	_ = all.Wait() // errors are the test's
	return int(n.Load())
}

// sshd's default MaxStartups drops three of ten connections beyond ten, whatever their
// address on it: no host is lost.
func TestHundredsThroughOneThrottledSSHD(t *testing.T) {
	throttled := fakesshd.Startups{Begin: 10, Rate: 30, Full: 100}
	for _, n := range []int{200, 500} {
		t.Run(fmt.Sprintf("%d addresses", n), func(t *testing.T) {
			f, s := startFake(t, fakesshd.Options{Listen: "0.0.0.0:0", MaxStartups: throttled})
			d := new(Dialer)
			if reached := dialAll(t, d, manyHosts(t, f, s, n), 64); reached != n {
				t.Errorf("%d of %d were reached; %d connections, %d dropped", reached, n, f.Connections.Load(), f.Dropped.Load())
			}
		})
		t.Run(fmt.Sprintf("%d hosts behind one jump host", n), func(t *testing.T) {
			gate, hop := startFake(t, fakesshd.Options{Forward: true, MaxStartups: throttled})
			f, s := startFake(t, fakesshd.Options{Listen: "0.0.0.0:0", MaxStartups: throttled})
			hosts := manyHosts(t, f, s, n)
			for i := range hosts {
				hosts[i].Via = &hop
			}
			// One that stays: with the last host the jump host's connection would end.
			d := new(Dialer)
			held, err := d.Dial(t.Context(), hosts[0])
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if reached := dialAll(t, d, hosts, 64); reached != n {
				t.Errorf("%d of %d were reached; %d dropped", reached, n, f.Dropped.Load())
			}
			if logins := gate.Logins.Load(); logins != 1 {
				t.Errorf("%d logins at the jump host", logins)
			}
		})
	}
}

// An sshd that breaks one connection does not cost the host.
func TestBrokenHandshakeIsTriedAgain(t *testing.T) {
	for _, fault := range []fakesshd.Fault{fakesshd.Close, fakesshd.Reset} {
		for _, at := range []fakesshd.Phase{fakesshd.Connected, fakesshd.Handshake} {
			t.Run(fmt.Sprintf("%s when %s", fault, at), func(t *testing.T) {
				f, s := startFake(t, fakesshd.Options{At: at, Fault: fault, First: 2})
				c, err := new(Dialer).Dial(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				if n := f.Connections.Load(); n != 3 {
					t.Errorf("%d connections", n)
				}
			})
		}
	}
	t.Run("a failed login is not repeated", func(t *testing.T) {
		f, s := startFake(t, fakesshd.Options{At: fakesshd.Authenticate, Fault: fakesshd.Close})
		_, err := new(Dialer).Dial(t.Context(), s)
		wantKind(t, err, "auth")
		if n := f.Connections.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

// A name server that is busy for a moment does not cost the host.
func TestBusyNameServer(t *testing.T) {
	for name, row := range map[string]struct {
		err   net.DNSError
		again bool
	}{
		"busy":         {net.DNSError{Err: "server misbehaving", IsTemporary: true}, true},
		"no such name": {net.DNSError{Err: "no such host", IsNotFound: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := attempts{d: new(Dialer), limiter: new(limiters).get("web1", 1), settings: Settings{}.withDefaults()}
			for try := 1; ; try++ {
				if err := a.begin(t.Context()); err != nil {
					t.Fatal(err)
				}
				again, err := a.end(t.Context(), dialError(t.Context(), a.settings, &row.err))
				if again {
					continue
				}
				wantKind(t, err, "dns")
				if want := map[bool]int{true: brokenAttempts, false: 1}[row.again]; try != want {
					t.Errorf("%d attempts, want %d", try, want)
				}
				return
			}
		})
	}
}

// MaxSessions is never reached: further sessions take another connection.
func TestSessionsBeyondThoseOfOneConnection(t *testing.T) {
	begun, end := make(chan bool), make(chan bool)
	f, s := startFake(t, fakesshd.Options{MaxSessions: 10, Exec: func(*fakesshd.Server, string, ssh.Channel) uint32 {
		begun <- true
		<-end
		return 0
	}})
	c, err := new(Dialer).Dial(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 3 * maxSessions
	var all errgroup.Group
	for range n {
		all.Go(func() error {
			_, err := c.Exec(t.Context(), "true", nil, nil, nil)
			return err
		})
	}
	for range n {
		<-begun
	}
	close(end)
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if logins, sessions := f.Logins.Load(), f.Sessions.Load(); logins != 3 || sessions != n {
		t.Errorf("%d logins, %d sessions", logins, sessions)
	}
}
