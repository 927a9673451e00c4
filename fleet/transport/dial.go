package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// Dialer makes connections, and shares between them what it can: files that it
// read, bastions, and the places at each sshd's door. The zero value is ready.
type Dialer struct {
	Agent  string // socket of the ssh-agent; default $SSH_AUTH_SOCK
	Starts int    // handshakes at once at one sshd; default 8

	known    cache[*knownHosts]
	keys     cache[identity]
	doors    doors
	bastions bastions
}

// Dial connects to a host and authenticates there. ctx bounds this and not the
// connection, which lives until it is closed or lost. All errors are
// [Unreachable], but for the end of ctx.
func (d *Dialer) Dial(ctx context.Context, s Settings) (*Conn, error) {
	s = s.withDefaults()
	c, err := d.dial(ctx, s)
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connect to %s: %w", s, context.Cause(ctx))
	}
	return nil, &unreachable{fmt.Errorf("connect to %s: %w", s, err)}
}

func (d *Dialer) dial(ctx context.Context, s Settings) (*Conn, error) {
	known, err := d.known.get(s.KnownHosts, readKnownHosts)
	if err != nil {
		return nil, err
	}
	// One dials through the controller's network or through a bastion's.
	dial, release := (&net.Dialer{}).DialContext, func() {}
	if s.Jump != "" {
		hop, err := s.lastHop()
		if err != nil {
			return nil, err
		}
		b, err := d.bastions.take(ctx, d, hop)
		if err != nil {
			return nil, err
		}
		dial, release = b.client.DialContext, func() { d.bastions.give(b) }
	}
	for try := 0; ; try++ {
		client, heard, err := d.attempt(ctx, s, known, dial)
		if err == nil {
			return newConn(s, client, heard, release), nil
		}
		var drop *dropped
		if !errors.As(err, &drop) || drop.penalty() {
			release()
			return nil, err
		}
		if try+1 == maxTries {
			release()
			return nil, fmt.Errorf("%w, %d times: its sshd is overloaded (MaxStartups), or refuses this address", err, maxTries)
		}
		if err := pause(ctx, try); err != nil {
			release()
			return nil, err
		}
	}
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// attempt connects once, to the end of authentication. It gives the count of
// what is read from the host, too.
func (d *Dialer) attempt(ctx context.Context, s Settings, known *knownHosts, dial dialFunc) (*ssh.Client, *atomic.Int64, error) {
	leave, err := d.doors.enter(ctx, s.Jump+"|"+s.endpoint(), cmp.Or(d.Starts, 8))
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	timeout := fmt.Errorf("no answer within %s", s.ConnectTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, s.ConnectTimeout, timeout)
	defer cancel()
	keys, err := d.offer(ctx, s.Identity)
	if err != nil {
		return nil, nil, err
	}
	defer keys.Close()
	conn, err := dial(ctx, "tcp", s.endpoint())
	if err != nil {
		return nil, nil, dialError(ctx, err)
	}
	sock := newSocket(conn)
	// Not a deadline: a channel through a bastion has none.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var proven bool // the host has shown a key that is known
	var hostKey error
	c, chans, reqs, err := ssh.NewClientConn(sock, s.endpoint(), &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: keyExchanges()},
		User:              s.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(keys.signers...)},
		HostKeyAlgorithms: known.db.HostKeyAlgorithms(s.endpoint()),
		HostKeyCallback: func(endpoint string, remote net.Addr, key ssh.PublicKey) error {
			hostKey = known.check(endpoint, remote, key)
			proven = hostKey == nil
			return hostKey
		},
	})
	if !stop() && err == nil {
		c.Close()
		return nil, nil, context.Cause(ctx)
	}
	if err == nil {
		return ssh.NewClient(c, chans, reqs), &sock.heard, nil
	}
	var none *ssh.AlgorithmNegotiationError
	switch {
	case ctx.Err() != nil && proven:
		return nil, nil, fmt.Errorf("authenticate as %s: %w", s.User, context.Cause(ctx))
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("SSH handshake: %w", context.Cause(ctx))
	case hostKey != nil:
		return nil, nil, hostKey
	case proven && closed(err):
		return nil, nil, fmt.Errorf("sshd closed the connection while %s authenticated (%s): %w", s.User, keys, err)
	case proven && !strings.Contains(err.Error(), "unable to authenticate"): // an agent that would not sign
		return nil, nil, fmt.Errorf("authenticate as %s (%s): %w", s.User, keys, err)
	case proven:
		return nil, nil, fmt.Errorf("permission denied: %s is not let in (%s): add a key to authorized_keys there, or name the right one with identity", s.User, keys)
	case !sock.greeted() && closed(err):
		return nil, nil, &dropped{said: Printable(string(sock.said))}
	case errors.As(err, &none) && len(known.db.HostKeys(s.endpoint())) > 0:
		return nil, nil, fmt.Errorf("it has no host key of a type that known_hosts holds for it: %w", err)
	}
	return nil, nil, err
}

// keyExchanges in order: safe against quantum computers first, then cheap
// first. SHA-1 is left out.
func keyExchanges() []string {
	return []string{
		ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519,
		ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521,
		ssh.KeyExchangeDH14SHA256,
	}
}

// dialError says what a refused connection may mean.
func dialError(ctx context.Context, err error) error {
	var refused *ssh.OpenChannelError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &refused):
		return fmt.Errorf("the jump host cannot reach it: %s", Printable(refused.Message))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: is its sshd running, and on this port?", err)
	}
	return err
}

// closed says whether err is the end of a connection from its other side.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// dropped is a connection that ended before sshd said its version: that is how
// it throttles (MaxStartups), and so it is worth another try.
type dropped struct {
	said string // sshd 9.8 and later say why
}

func (e *dropped) Error() string {
	if e.said != "" {
		return "sshd closed the connection at once: " + e.said
	}
	return "sshd closed the connection at once"
}

// penalty says whether sshd punishes this address (PerSourcePenalties): then
// another try within seconds only makes it last.
func (e *dropped) penalty() bool { return strings.HasPrefix(e.said, "Not allowed") }
