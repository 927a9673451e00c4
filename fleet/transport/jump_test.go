package transport

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// logins returns the number of logins that sshd accepted.
func logins(s *sshtest.Server) int { return strings.Count(s.Log(), "Accepted publickey") }

// routeThrough returns settings that reach the last server through the others, all of
// which accept the last one's key.
func routeThrough(t *testing.T, servers ...*sshtest.Server) Settings {
	t.Helper()
	last := servers[len(servers)-1]
	s := settings(last)
	s.KnownHosts = filepath.Join(t.TempDir(), "known_hosts")
	keys, err := os.ReadFile(last.Identity + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, server := range servers {
		known = append(known, server.KnownHostsLine(server.HostKey.PublicKey()))
		if server != last {
			s.Via = Hop{Address: "127.0.0.1", Port: server.Port}.Settings(s, s.Via)
			write(t, filepath.Join(server.Dir, "authorized_keys"), string(keys)+"\n")
		}
	}
	write(t, s.KnownHosts, strings.Join(known, ""))
	return s
}

func TestJump(t *testing.T) {
	outer, inner := sshtest.Start(t, sshtest.Options{}), sshtest.Start(t, sshtest.Options{})
	target := sshtest.Start(t, sshtest.Options{})
	t.Run("hosts share their bastions, and the last one closes them", func(t *testing.T) {
		s := routeThrough(t, outer, inner, target)
		d := dialer(t)
		const n = 12
		conns := make(chan *Conn, n)
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				c, err := d.Dial(t.Context(), s)
				if err != nil {
					t.Error(err)
					return
				}
				conns <- c
				var out bytes.Buffer
				if _, err := c.Exec(t.Context(), "echo $SSH_CONNECTION", nil, &out, nil); err != nil || out.Len() == 0 {
					t.Errorf("error %v, stdout %q", err, &out)
				}
			})
		}
		all.Wait()
		close(conns)
		if logins(outer) != 1 || logins(inner) != 1 || logins(target) != n {
			t.Errorf("logins: %d at the outer, %d at the inner bastion, %d at the host", logins(outer), logins(inner), logins(target))
		}
		for c := range conns {
			c.Close()
		}
		waitFor(t, "the bastions to be left", func() bool {
			return strings.Contains(outer.Log(), "Connection closed by") && strings.Contains(inner.Log(), "Connection closed by")
		})
		if len(d.bastions.open) != 0 {
			t.Errorf("%d bastions are kept", len(d.bastions.open))
		}
		c, err := d.Dial(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
	t.Run("a port where nothing listens behind a bastion", func(t *testing.T) {
		s := routeThrough(t, outer, target)
		s.Port = 1
		wantUnreachable(t, s, "the jump host 127.0.0.1 cannot reach it: Connection refused")
	})
	t.Run("a bastion that is not known", func(t *testing.T) {
		s := routeThrough(t, outer, target)
		s.Via.KnownHosts = target.KnownHosts
		wantUnreachable(t, s, "connect to jump host 127.0.0.1", "is not known")
	})
	t.Run("a bastion that is lost takes its hosts along, and is made anew", func(t *testing.T) {
		bastion := sshtest.Start(t, sshtest.Options{})
		s := routeThrough(t, bastion, target)
		d := dialer(t)
		c, err := d.Dial(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		bastion.Kill()
		if _, err := c.Exec(t.Context(), "cat", nil, nil, nil); !Unreachable(err) {
			t.Errorf("error %v", err)
		}
		if _, err := d.Dial(t.Context(), s); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("a bastion that is gone: %v", err)
		}
	})
}

// The end of a connection is noticed a moment later: whoever asks for it in between
// gets a new one.
func TestABastionThatIsLostUnnoticedIsMadeAnew(t *testing.T) {
	through, target := sshtest.Start(t, sshtest.Options{}), sshtest.Start(t, sshtest.Options{})
	s := routeThrough(t, through, target)
	d := dialer(t)
	first, err := d.Dial(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	d.bastions.mu.Lock()
	var lost *bastion
	for _, b := range d.bastions.open {
		lost = b
	}
	d.bastions.mu.Unlock()
	lost.client.Close()
	<-lost.conn.done
	d.bastions.mu.Lock()
	d.bastions.open[lost.key] = lost
	d.bastions.mu.Unlock()
	c, err := d.Dial(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestParseJump(t *testing.T) {
	for _, row := range []struct{ jump, want string }{
		{"bastion", "[{ bastion 0}]"},
		{"root@bastion:2222", "[{root bastion 2222}]"},
		{"a, root@b:23 ,c", "[{ a 0} {root b 23} { c 0}]"},
		{"[2001:db8::1]", "[{ 2001:db8::1 0}]"},
		{"[2001:db8::1]:23", "[{ 2001:db8::1 23}]"},
		{"2001:db8::1", "[{ 2001:db8::1 0}]"},
		{"ops@[2001:db8::1]:23", "[{ops 2001:db8::1 23}]"},
		{"ssh://ops@bastion:2200", "[{ops bastion 2200}]"},
		{"ssh://[2001:db8::1]:23/", "[{ 2001:db8::1 23}]"},
		{"ssh://a%40b@bastion,c", "[{a@b bastion 0} { c 0}]"},
		{"admin@example.org@bastion", "[{admin@example.org bastion 0}]"},
		{"none", "[]"}, {"", "[]"},
		{"a:ssh", "error"}, {"a:0", "error"}, {"@a", "error"}, {",", "error"}, {"root@", "error"}, {"a,none", "error"},
		{"http://bastion", "error"}, {"ssh://bastion/x", "error"}, {"-oProxyCommand=x", "error"},
	} {
		got := "error"
		if hops, err := ParseJump(row.jump); err == nil {
			got = fmt.Sprintf("%v", hops)
		}
		if got != row.want {
			t.Errorf("%q: %s, want %s", row.jump, got, row.want)
		}
	}
}

func FuzzParseJump(f *testing.F) {
	for _, jump := range []string{"bastion", "root@b:22,c", "[::1]:22", "@:,", "[:", "ssh://a@b:1"} {
		f.Add(jump)
	}
	f.Fuzz(func(t *testing.T, jump string) {
		hops, err := ParseJump(jump)
		if err != nil {
			return
		}
		for _, h := range hops {
			if h.Address == "" || h.Port < 0 || h.Port > 65535 {
				t.Fatalf("%q: %+v", jump, h)
			}
		}
	})
}

func FuzzHostText(f *testing.F) {
	for _, text := range []string{"sudo: a password is required", "\x1b[2J\x9b", "bash: sudo: command not found", "\xff\n"} {
		f.Add(1, text)
		f.Add(127, text)
	}
	f.Fuzz(func(t *testing.T, exit int, text string) {
		shown := Printable(text)
		b := becoming{password: "secret", number: "1"}
		if exit == 0 {
			b.password = ""
		}
		if _, err := b.await(strings.NewReader(text), io.Discard); err != nil {
			shown += err.Error()
		}
		for _, r := range shown {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q has control character %q", shown, r)
			}
		}
	})
}
