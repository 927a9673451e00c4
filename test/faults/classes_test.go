package faults

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/fleet/outcome"
	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
	"github.com/vsfleet/vsfleet/test/fakesshd"
)

// sshd starts a real sshd whose login shell runs a script.
func sshd(t *testing.T, login string) host {
	t.Helper()
	s := sshtest.Start(t, sshtest.Options{Login: login + "\n" + `exec sh -c "$SSH_ORIGINAL_COMMAND"`})
	return host{
		fmt.Sprintf("{address: 127.0.0.1, port: %d, identity: %s}", s.Port, s.Identity),
		s.KnownHostsLine(s.HostKey.PublicKey()),
	}
}

// smallDir covers /var/lib/vsnode by a filesystem with these options, once. sshd has a
// mount namespace of its own.
func smallDir(options string) string {
	return `mountpoint -q /var/lib/vsnode || { mount -t tmpfs -o mode=755 tmpfs /var/lib && mkdir -m 700 /var/lib/vsnode && mount -t tmpfs -o mode=700,` + options + ` tmpfs /var/lib/vsnode; }`
}

// onlyShell leaves a host nothing but a shell.
const onlyShell = "mkdir -p /run/bin && ln -sf /bin/sh /run/bin/sh; PATH=/run/bin"

// elsewhere returns a host with a key and this address.
func elsewhere(t *testing.T, address string) host {
	s, _ := fake(t, fakesshd.Options{})
	return host{line: fmt.Sprintf("{%s, identity: %s}", address, s.Identity)}
}

func becoming(h host) host {
	h.line = strings.Replace(h.line, "{", "{become: true, ", 1)
	return h
}

// TestEveryClassHappens has one host for each class of failure beside two that are well.
func TestEveryClassHappens(t *testing.T) {
	failing := func(text string, exit uint32) func(*fakesshd.Server, string, ssh.Channel) uint32 {
		return func(_ *fakesshd.Server, _ string, ch ssh.Channel) uint32 {
			io.WriteString(ch.Stderr(), text+"\n")
			return exit
		}
	}
	for _, row := range []struct {
		name string
		host func(t *testing.T) host
		args []string // default ping
		kind outcome.Kind
		says string
		exit int
	}{
		{
			name: "a name without an address", kind: outcome.KindDNS, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host { return elsewhere(t, "address: nobody.invalid") },
			says: "lookup nobody.invalid",
		},
		{
			name: "a port where nothing listens", kind: outcome.KindTCP, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host { return elsewhere(t, "address: 127.0.0.1, port: 1") },
			says: "connection refused: is its sshd running, and on this port?",
		},
		{
			name: "an sshd that drops every connection", kind: outcome.KindThrottled, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{At: fakesshd.Connected, Fault: fakesshd.Close})
				return h
			},
			says: "its sshd is overloaded (MaxStartups), or refuses this address",
		},
		{
			name: "an sshd that punishes", kind: outcome.KindPenalty, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host {
				s, h := fake(t, fakesshd.Options{})
				s.Penalise(time.Hour)
				return h
			},
			args: []string{"ping", "--connect-timeout", "400ms"},
			says: "Not allowed at this time: it punishes this machine's address for failures (PerSourcePenalties), still after 4.8s",
		},
		{
			name: "another host key", kind: outcome.KindHostKey, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{WrongHostKey: true})
				return h
			},
			says: "its host key has CHANGED",
		},
		{
			name: "a key that opens nothing", kind: outcome.KindAuth, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{AuthorizedOther: true})
				return h
			},
			says: "permission denied: root is not let in",
		},
		{
			name: "an authentication without an end", kind: outcome.KindTimeout, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{At: fakesshd.Authenticate, Fault: fakesshd.Hang})
				return h
			},
			says: "authenticate as root: no answer within 2s",
		},
		{
			name: "a connection that is lost behind a request", kind: outcome.KindLost, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{At: fakesshd.Request, Fault: fakesshd.Close})
				return h
			},
			says: "connection lost: EOF",
		},
		{
			name: "a web server", kind: outcome.KindUnreachable, exit: outcome.ExitUnreachable,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{Chatter: "HTTP/1.1 400 Bad Request\r\n\r\n", At: fakesshd.Handshake, Fault: fakesshd.Close})
				return h
			},
			says: "closed during the handshake",
		},
		{
			name: "an answer that does not come in time", kind: outcome.KindTimeout, exit: outcome.ExitFailed,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{At: fakesshd.Request, Fault: fakesshd.Hang})
				return h
			},
			args: []string{"ping", "--timeout", "4s"},
			says: "no end after 4s (--timeout)",
		},
		{
			name: "sessions refused", kind: outcome.KindHost, exit: outcome.ExitFailed,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{RefuseSessions: "administratively prohibited"})
				return h
			},
			says: "sshd refuses a session: administratively prohibited",
		},
		{
			name: "a real sudo that refuses", kind: outcome.KindSudo, exit: outcome.ExitFailed,
			host: func(t *testing.T) host {
				return becoming(sshd(t, `exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "$SSH_ORIGINAL_COMMAND"`))
			},
			says: "become root: sudo: a password is required",
		},
		{
			name: "neither sudo nor doas", kind: outcome.KindSudo, exit: outcome.ExitFailed,
			host: func(t *testing.T) host { return becoming(sshd(t, onlyShell)) },
			says: "the host has neither sudo nor doas",
		},
		{
			name: "a real filesystem mounted noexec", kind: outcome.KindNoexec, exit: outcome.ExitFailed,
			host: func(t *testing.T) host { return sshd(t, smallDir("noexec")) },
			says: "is /var/lib/vsnode on a file system mounted noexec",
		},
		{
			name: "a real filesystem that is full", kind: outcome.KindDisk, exit: outcome.ExitFailed,
			host: func(t *testing.T) host { return sshd(t, smallDir("size=1m")) },
			says: "No space left on device",
		},
		{
			name: "a real filesystem that is read-only", kind: outcome.KindDisk, exit: outcome.ExitFailed,
			host: func(t *testing.T) host { return sshd(t, smallDir("ro")) },
			says: "Read-only file system",
		},
		{
			name: "a host without tools", kind: outcome.KindUnable, exit: outcome.ExitFailed,
			host: func(t *testing.T) host { return sshd(t, onlyShell) },
			says: "lacks what a push needs: find, uname, id",
		},
		{
			name: "a login shell that runs nothing", kind: outcome.KindHost, exit: outcome.ExitFailed,
			host: func(t *testing.T) host { return sshd(t, "exec /usr/sbin/nologin") },
			says: "This account is currently not available.",
		},
		{
			name: "a login shell without an end to its chatter", kind: outcome.KindHost, exit: outcome.ExitFailed,
			host: func(t *testing.T) host { return sshd(t, "exec yes Welcome") },
			says: "vsnode did not begin within its first 65536 bytes",
		},
		{
			name: "a program that ends by itself", kind: outcome.KindHost, exit: outcome.ExitFailed,
			host: func(t *testing.T) host {
				_, h := fake(t, fakesshd.Options{Exec: failing("sh: cannot fork", 2)})
				return h
			},
			says: "sh: cannot fork",
		},
		{
			name: "a command with another status", kind: outcome.KindExit, exit: outcome.ExitFailed,
			host: func(t *testing.T) host { return sshd(t, "") },
			args: []string{"run", "--", `[ "$SSH_CONNECTION" = "" ] && exit 0; exit 3`},
			says: "exit status 3",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, first := fake(t, fakesshd.Options{Exec: commands})
			_, last := fake(t, fakesshd.Options{Exec: commands})
			if row.args == nil {
				row.args = []string{"ping", "--connect-timeout", "2s"}
			}
			r := with(t, map[string]host{"a": first, "bad": row.host(t), "z": last}, row.args...)
			got := r.records["bad"]
			if got.Class != string(row.kind) || !strings.Contains(got.Error, row.says) {
				t.Errorf("class %q, error %q; want class %q, error %q", got.Class, got.Error, row.kind, row.says)
			}
			if r.exit != row.exit {
				t.Errorf("exit status %d, want %d", r.exit, row.exit)
			}
			inRecord := row.kind == outcome.KindExit // an output's, not an error of the host
			if !inRecord && !strings.Contains(r.stderr, row.says) || !strings.Contains(r.stderr, row.kind.Hint()) {
				t.Errorf("standard error lacks %q or %q:\n%s", row.says, row.kind.Hint(), r.stderr)
			}
			for _, name := range []string{"a", "z"} {
				if good := r.records[name]; good.Status != "ok" {
					t.Errorf("%s: %+v", name, good)
				}
			}
		})
	}
}
