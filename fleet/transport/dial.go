package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// Dialer makes connections, and shares between them the files that it has read, the
// connections to bastions, and the handshakes that each sshd accepts at once. The
// zero value is ready to use.
type Dialer struct {
	Agent         string // socket of the ssh-agent; default $SSH_AUTH_SOCK
	MaxHandshakes int    // at once at one sshd; default 8

	Password       string // of the users; not tried if it is empty
	BecomePassword string // for sudo or doas, if they ask for one
	// Ask asks the person at this machine: for the passphrase of a key, and what sshd
	// wants to know beside a password. It may be nil, and is called once at a time.
	Ask func(ctx context.Context, prompt string, echo bool) (string, error)
	// Say tells the person what to do: touch a security key. It may be nil, and is called
	// by many goroutines.
	Say func(text string)

	// Waiting is called when a host begins to wait for an sshd that punishes this machine
	// (PerSourcePenalties); it may be nil.
	Waiting func(host, why string)

	known    cache[*knownHosts]
	revoked  cache[revokedKeys]
	session  sessionKeys
	keys     cache[identity]
	certs    cache[*ssh.Certificate]
	unlocked cache[ssh.Signer]
	asking   sync.Mutex
	touches  touches
	limiters limiters
	bastions bastions
}

// Dial connects to a host and authenticates there. ctx bounds this, not
// the connection, which lives until it is closed or lost. Errors are [Unreachable],
// except if ctx ends or something is wrong on this machine ([Local]).
func (d *Dialer) Dial(ctx context.Context, s Settings) (*Conn, error) {
	return d.connect(ctx, s.withDefaults(), false)
}

func (d *Dialer) connect(ctx context.Context, s Settings, probe bool) (*Conn, error) {
	c, err := d.dial(ctx, s, probe)
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connect to %s: %w", s, context.Cause(ctx))
	}
	if exhausted := outOfFiles(err); exhausted != nil {
		err = exhausted
	}
	err = fmt.Errorf("connect to %s: %w", s, err)
	if Local(err) {
		return nil, err
	}
	return nil, &unreachableError{err}
}

// Check returns an error if something on this machine keeps every host with these
// settings from being reached: a file that cannot be read, no key to offer.
// It connects only to the agent, and to the socket of a running ssh.
func (d *Dialer) Check(ctx context.Context, s Settings) error {
	s = s.withDefaults()
	if _, err := d.knownHosts(s, false); err != nil {
		return err
	}
	if _, err := s.Algorithms.config(); err != nil {
		return &localError{err}
	}
	if _, err := d.revokedKeys(s); err != nil {
		return &localError{err}
	}
	if s.Via != nil {
		if err := d.Check(ctx, *s.Via); err != nil {
			return fmt.Errorf("%s: %w", s.Via.Name, err)
		}
	}
	if c := d.dialMaster(ctx, s); c != nil {
		return c.Close() // no key is needed
	}
	keys, err := d.offer(ctx, s)
	if err != nil {
		return &localError{err}
	}
	keys.Close()
	return nil
}

// knownHosts returns the known host keys. The file may be missing only if probe is
// set, as the host's key may then be the first.
func (d *Dialer) knownHosts(s Settings, probe bool) (*knownHosts, error) {
	known, err := d.known.get(s.knownHostsFiles(), readKnownHosts)
	if err == nil && !probe && !s.HostKeys.New {
		err = known.missing
	}
	if err != nil {
		return nil, &localError{err}
	}
	return known, nil
}

// Knows reports whether there is any key for a host, or an authority's. It connects to
// nothing.
func (d *Dialer) Knows(s Settings) bool {
	s = s.withDefaults()
	known, err := d.knownHosts(s, true)
	return err == nil && (len(known.hostKeys(s.knownHostsEndpoint())) > 0 || d.session.has(s.knownHostsEndpoint(), nil))
}

// HostKey returns the key that a host shows, if that is known already. It does not
// log in. The error is an [UnknownKeyError] or a [ChangedKeyError], or as Dial's.
func (d *Dialer) HostKey(ctx context.Context, s Settings) (ssh.PublicKey, error) {
	var known *knownKeyError
	_, err := d.connect(ctx, s.withDefaults(), true)
	if errors.As(err, &known) {
		return known.key, nil
	}
	return nil, err
}

// knownKeyError ends a handshake that was made only to see the host key.
type knownKeyError struct{ key ssh.PublicKey }

func (e *knownKeyError) Error() string { return "its host key is known" }

// dial connects. If the connection to the jump host turns out to be lost, it makes
// another one and tries again.
func (d *Dialer) dial(ctx context.Context, s Settings, probe bool) (*Conn, error) {
	if !probe {
		if c := d.dialMaster(ctx, s); c != nil {
			return c, nil
		}
	}
	c, err := d.dialOnce(ctx, s, probe)
	if lost := new(lostBastionError); errors.As(err, &lost) {
		return d.dialOnce(ctx, s, probe)
	}
	return c, err
}

func (d *Dialer) handshakes() int { return cmp.Or(d.MaxHandshakes, 8) }

// dialOnce connects, trying again what may succeed the next time: see [attempts].
func (d *Dialer) dialOnce(ctx context.Context, s Settings, probe bool) (*Conn, error) {
	known, err := d.knownHosts(s, probe)
	if err != nil {
		return nil, err
	}
	// Through the controller's own network, or through a bastion.
	dial, release := dialDirectly(s), func() {}
	var via *bastion
	if s.Via != nil {
		via, err = d.bastions.acquire(ctx, d, s.Via.withDefaults())
		if err != nil {
			return nil, err
		}
		dial, release = via.dialContext, func() { d.bastions.release(via) }
	}
	a := attempts{d: d, settings: s, limiter: d.limiters.get(s.Route(), d.handshakes())}
	for {
		if err := a.begin(ctx); err != nil {
			release()
			return nil, err
		}
		client, received, err := d.attempt(ctx, s, known, dial, probe)
		if via != nil && via.lostWith(err) {
			d.bastions.forget(via)
			err = &lostBastionError{via.settings.Address}
		}
		again, err := a.end(ctx, err)
		switch {
		case err == nil && !again:
			return newConn(d, s, client, received, via, release), nil
		case !again:
			release()
			return nil, err
		}
	}
}

// lostBastionError reports that the connection to a jump host had ended before a
// channel through it was asked for.
type lostBastionError struct{ name string }

func (e *lostBastionError) Error() string {
	return "the connection to the jump host " + e.name + " was lost"
}

// ErrorKind is an outcome.Kind.
func (e *lostBastionError) ErrorKind() string { return kindLost }

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// attempt connects once, to the end of authentication. It also returns the
// count of bytes read from the host.
func (d *Dialer) attempt(ctx context.Context, s Settings, known *knownHosts, dial dialFunc, probe bool) (*ssh.Client, *atomic.Int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	keys := new(offer)
	if !probe {
		var err error
		if keys, err = d.offer(ctx, s); err != nil {
			return nil, nil, &localError{err}
		}
	}
	defer keys.Close()
	h := &handshake{settings: s, dialer: d, known: known, session: &d.session, keys: keys, probe: probe}
	if keys.hasSecurityKey() && !d.touches.unneeded.Load() {
		if err := d.touches.acquire(ctx); err != nil {
			return nil, nil, err
		}
		defer d.touches.release()
		h.turn = true
	}
	h.ctx = ctx
	h.deadline = newDeadline(s.ConnectTimeout, func() { cancel(fmt.Errorf("no answer within %s", s.ConnectTimeout)) })
	defer h.deadline.timer.Stop()
	revoked, err := d.revokedKeys(s)
	if err != nil {
		return nil, nil, &localError{err}
	}
	conn, err := dial(ctx, "tcp", s.endpoint())
	if err != nil {
		return nil, nil, dialError(ctx, s, err)
	}
	h.revoked, h.sock = revoked, newSocket(conn)
	config, err := h.config()
	if err != nil {
		conn.Close()
		return nil, nil, &localError{err}
	}
	// Not a deadline: a channel through a bastion has none.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, chans, reqs, err := ssh.NewClientConn(h.sock, s.endpoint(), config)
	if !stop() && err == nil {
		c.Close()
		return nil, nil, &kindError{kindTimeout, context.Cause(ctx)}
	}
	if err == nil {
		if h.turn && !h.touched {
			d.touches.unneeded.Store(true)
		}
		return ssh.NewClient(c, chans, reqs), &h.sock.received, nil
	}
	return nil, nil, h.explain(ctx, err)
}

// dialError explains what a refused connection may mean.
func dialError(ctx context.Context, s Settings, err error) error {
	var refused *ssh.OpenChannelError
	var lost *lostBastionError
	var name *net.DNSError
	switch {
	case errors.As(err, &lost):
		return lost
	case errors.As(err, &name):
		return &kindError{kindDNS, err}
	case ctx.Err() != nil:
		return &kindError{kindTCP, context.Cause(ctx)}
	case errors.As(err, &refused) && refused.Reason == ssh.Prohibited:
		return fmt.Errorf("the jump host %s does not forward connections there (%s): its sshd_config needs AllowTcpForwarding yes, and no PermitOpen or DisableForwarding in the way",
			s.Via.Address, Printable(refused.Message))
	case errors.As(err, &refused):
		kind := kindTCP
		if strings.Contains(refused.Message, "ame resolution") || strings.Contains(refused.Message, "not known") {
			kind = kindDNS // as gai_strerror(3) says it
		}
		return ofKind(kind, "the jump host %s cannot reach it: %s", s.Via.Address, Printable(refused.Message))
	case s.Via != nil && peerClosed(err):
		return &lostBastionError{s.Via.Address}
	case errors.Is(err, syscall.ECONNRESET): // the reset came before connect(2) returned
		return &droppedError{}
	case errors.Is(err, syscall.ECONNREFUSED):
		return ofKind(kindTCP, "%w: is its sshd running, and on this port?", err)
	}
	return &kindError{kindTCP, err}
}

// peerClosed reports whether err is the end of a connection from its other side. After a
// write that failed x/crypto/ssh closes the connection itself, and what it was reading fails
// with net.ErrClosed.
func peerClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
