package transport

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
	"github.com/vsfleet/vsfleet/test/faultproxy"
)

// wantKind fails the test unless the error is of a kind.
func wantKind(t *testing.T, err error, kind string) {
	t.Helper()
	var kinded interface{ ErrorKind() string }
	if !errors.As(err, &kinded) || kinded.ErrorKind() != kind {
		t.Errorf("error %v is not of kind %s", err, kind)
	}
}

// through returns the settings that reach a server through a proxy with faults.
func through(t *testing.T, server *sshtest.Server, f faultproxy.Faults) Settings {
	t.Helper()
	p, err := faultproxy.Start(fmt.Sprintf("127.0.0.1:%d", server.Port), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	s := settings(server)
	s.Port = p.Port
	s.ConnectTimeout = time.Second
	line := strings.Replace(server.KnownHostsLine(server.HostKey.PublicKey()), fmt.Sprint(server.Port), fmt.Sprint(s.Port), 1)
	s.KnownHosts = t.TempDir() + "/known_hosts"
	write(t, s.KnownHosts, line)
	return s
}

func TestFaultsOnTheWay(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	const early, late = 500, 1500 // bytes: in the key exchange, and behind it
	for _, row := range []struct {
		name   string
		faults faultproxy.Faults
		want   string
		kind   string
	}{
		{"cut off before sshd speaks", faultproxy.Faults{Damage: faultproxy.Close}, "closed the connection at once", "throttled"},
		{"reset before sshd speaks", faultproxy.Faults{Damage: faultproxy.Reset}, "closed the connection at once", "throttled"},
		{"cut off in sshd's name", faultproxy.Faults{Damage: faultproxy.Close, After: 4}, "the connection was closed during the handshake", "unreachable"},
		{"cut off in the key exchange", faultproxy.Faults{Damage: faultproxy.Close, After: early}, "the connection was closed during the handshake", "unreachable"},
		{"reset in the key exchange", faultproxy.Faults{Damage: faultproxy.Reset, After: early}, "the connection was closed during the handshake", "unreachable"},
		{"cut off in the authentication", faultproxy.Faults{Damage: faultproxy.Close, After: late}, "closed the connection while root authenticated", "auth"},
		{"silent from the start", faultproxy.Faults{Damage: faultproxy.Stall}, "no SSH server spoke: no answer within", "timeout"},
		{"swallowed", faultproxy.Faults{BlackHole: true}, "no SSH server spoke: no answer within", "timeout"},
		{"half open in the key exchange", faultproxy.Faults{Damage: faultproxy.HalfOpen, After: early}, "SSH handshake: no answer within", "timeout"},
		{"silent in the key exchange", faultproxy.Faults{Damage: faultproxy.Stall, After: early}, "SSH handshake: no answer within", "timeout"},
		{"silent in the authentication", faultproxy.Faults{Damage: faultproxy.Stall, After: late}, "authenticate as root: no answer within", "timeout"},
		{"altered in the key exchange", faultproxy.Faults{Damage: faultproxy.Alter, After: early}, "SSH handshake: ", ""}, // or a length for which it waits
		{"altered in the authentication", faultproxy.Faults{Damage: faultproxy.Alter, After: late}, "authenticate as root", "auth"},
		{"late by 400 ms a chunk", faultproxy.Faults{Delay: 400 * time.Millisecond}, "no answer within", "timeout"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := wantUnreachable(t, through(t, server, row.faults), row.want)
			if row.kind != "" {
				wantKind(t, err, row.kind)
			}
		})
	}
	// Wherever it breaks, the host is unreachable, and the error does not advise to add a key.
	t.Run("cut off anywhere", func(t *testing.T) {
		for n := int64(1); n < 2200; n += 257 {
			s := through(t, server, faultproxy.Faults{Damage: faultproxy.Close, After: n})
			c, err := dialer(t).Dial(t.Context(), s)
			if err == nil {
				_, err = c.Exec(t.Context(), "true", nil, new(bytes.Buffer), nil)
				c.Close()
			}
			if !Unreachable(err) || strings.Contains(err.Error(), "permission denied") || strings.Contains(err.Error(), "known_hosts") {
				t.Errorf("after %d bytes: %v", n, err)
			}
		}
	})
}

// What is slow, and within the time, is reached.
func TestSlowLinks(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	for name, faults := range map[string]faultproxy.Faults{
		"200 ms a round trip": {Delay: 100 * time.Millisecond},
		"8 kB a second":       {Bandwidth: 8 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := through(t, server, faults)
			s.ConnectTimeout = 5 * time.Second
			c, err := new(Dialer).Dial(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if exit, err := c.Exec(t.Context(), "true", nil, nil, nil); exit != 0 || err != nil {
				t.Errorf("exit %d, error %v", exit, err)
			}
		})
	}
}
