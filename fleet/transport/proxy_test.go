package transport

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// faultyProxy is a proxy in front of an sshd; fault copies what sshd sends.
func faultyProxy(t *testing.T, port int, fault func(from net.Conn, to net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				client.Close()
				continue
			}
			t.Cleanup(func() { client.Close(); server.Close() })
			go func() { _, _ = io.Copy(server, client) }()
			go fault(server, client)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestFaultsOnTheWay(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	cut := func(n int64, reset bool) func(net.Conn, net.Conn) {
		return func(from, to net.Conn) {
			_, _ = io.CopyN(to, from, n)
			if reset {
				_ = to.(*net.TCPConn).SetLinger(0)
			}
			to.Close()
		}
	}
	stall := func(n int64) func(net.Conn, net.Conn) {
		return func(from, to net.Conn) { _, _ = io.CopyN(to, from, n) }
	}
	alter := func(n int64) func(net.Conn, net.Conn) {
		return func(from, to net.Conn) {
			_, _ = io.CopyN(to, from, n)
			b := make([]byte, 1)
			_, _ = io.ReadFull(from, b)
			_, _ = to.Write([]byte{b[0] ^ 0x55})
			_, _ = io.Copy(to, from)
		}
	}
	const early, late = 500, 1500 // bytes: in the key exchange, and behind it
	for _, row := range []struct {
		name  string
		fault func(from, to net.Conn)
		want  string
	}{
		{"cut off before sshd speaks", cut(0, false), "closed the connection at once"},
		{"reset before sshd speaks", cut(0, true), "closed the connection at once"},
		{"cut off in sshd's name", cut(4, false), "closed the connection during the handshake"},
		{"cut off in the key exchange", cut(early, false), "closed the connection during the handshake"},
		{"reset in the key exchange", cut(early, true), "closed the connection during the handshake"},
		{"cut off in the authentication", cut(late, false), "closed the connection while root authenticated"},
		{"silent from the start", stall(0), "no SSH server spoke: no answer within"},
		{"silent in the key exchange", stall(early), "SSH handshake: no answer within"},
		{"silent in the authentication", stall(late), "authenticate as root: no answer within"},
		{"altered in the key exchange", alter(early), "SSH handshake: "},
		{"altered in the authentication", alter(late), "authenticate as root"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := settings(server)
			s.Port = faultyProxy(t, server.Port, row.fault)
			s.ConnectTimeout = 400 * time.Millisecond
			line := strings.Replace(server.KnownHostsLine(server.HostKey.PublicKey()), fmt.Sprint(server.Port), fmt.Sprint(s.Port), 1)
			s.KnownHosts = t.TempDir() + "/known_hosts"
			write(t, s.KnownHosts, line)
			wantUnreachable(t, s, row.want)
		})
	}
	// Wherever it breaks, the host is unreachable, and the error does not advise to add a key.
	t.Run("cut off anywhere", func(t *testing.T) {
		for n := int64(1); n < 2200; n += 157 {
			s := settings(server)
			s.Port = faultyProxy(t, server.Port, cut(n, false))
			line := strings.Replace(server.KnownHostsLine(server.HostKey.PublicKey()), fmt.Sprint(server.Port), fmt.Sprint(s.Port), 1)
			s.KnownHosts = t.TempDir() + "/known_hosts"
			write(t, s.KnownHosts, line)
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
