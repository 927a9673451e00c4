package transport

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// bastions holds the connections to jump hosts. All hosts behind a bastion share
// one: channels through it are not counted by MaxSessions (sshd_config(5)),
// handshakes with it are counted by MaxStartups.
type bastions struct {
	mu   sync.Mutex
	open map[string]*bastion
}

// bastion is a connection to a jump host, or one that is being made.
type bastion struct {
	settings Settings
	key      string
	users    int
	done     chan struct{} // closed when conn or err is set
	cancel   context.CancelFunc
	conn     *Conn
	client   *ssh.Client
	err      error
	stands   time.Time // until then err is the answer to everybody
}

// failureStands is how long a jump host that could not be reached is not tried again:
// the hundreds of hosts behind it fail together, and are no hundreds of failed logins.
const failureStands = 30 * time.Second

// failed reports whether the connection could not be made.
func (b *bastion) failed() bool {
	select {
	case <-b.done:
		return b.err != nil
	default:
		return false
	}
}

// connected reports whether the connection has been made.
func (b *bastion) connected() bool {
	select {
	case <-b.done:
		return b.err == nil
	default:
		return false
	}
}

// outdated reports whether the connection could not be made, a while ago.
func (b *bastion) outdated() bool { return b.failed() && time.Now().After(b.stands) }

// dialContext opens a channel through the jump host. If the connection ends at that
// moment, the library waits for the channel for ever: ssh.mux.loop has closed all
// channels by then, and does not know this one.
func (b *bastion) dialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-b.conn.done:
			cancel(&lostBastionError{b.settings.Address})
		case <-ctx.Done():
		}
	}()
	conn, err := b.client.DialContext(ctx, network, addr)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, cause
	}
	return conn, err
}

// lostWith reports whether the connection to the jump host has ended, if err may be the
// effect of that on a connection through it.
func (b *bastion) lostWith(err error) bool {
	var drop *droppedError
	var broken *brokenError
	switch {
	case err == nil:
		return false
	case errors.As(err, new(*lostBastionError)):
		return true
	case errors.As(err, &drop), errors.As(err, &broken), peerClosed(err):
		b.conn.awaitLoss()
	}
	select {
	case <-b.conn.done:
		return true
	default:
		return false
	}
}

// acquire returns the connection to a jump host, with one more user.
func (p *bastions) acquire(ctx context.Context, d *Dialer, hop Settings) (*bastion, error) {
	key := hop.key()
	p.mu.Lock()
	b := p.open[key]
	if b == nil || b.outdated() {
		b = &bastion{settings: hop, key: key, done: make(chan struct{})}
		if p.open == nil {
			p.open = make(map[string]*bastion)
		}
		p.open[key] = b
		// The first user may give up while others still wait for it.
		var dialing context.Context
		dialing, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go p.dial(dialing, d, b)
	}
	b.users++
	p.mu.Unlock()
	select {
	case <-b.done:
		if b.err == nil {
			return b, nil
		}
		p.release(b)
		return nil, b.err
	case <-ctx.Done():
		p.release(b)
		return nil, ctx.Err()
	}
}

func (p *bastions) dial(ctx context.Context, d *Dialer, b *bastion) {
	b.conn, b.err = d.Dial(ctx, b.settings)
	if b.err == nil {
		b.client = b.conn.client
		go func() {
			<-b.conn.done
			p.forget(b)
		}()
	} else if ctx.Err() == nil {
		b.stands = time.Now().Add(failureStands)
	}
	close(b.done)
}

// idleTime is how long a connection to a jump host is kept without users: between one host
// of a run and the next there may be none.
const idleTime = 2 * time.Second

// release removes a user. If it was the last one, the connection is closed after a while,
// and one that is being made is given up.
func (p *bastions) release(b *bastion) {
	p.mu.Lock()
	b.users--
	last, lost := b.users == 0, p.open[b.key] != b
	p.mu.Unlock()
	switch {
	case !last:
	case b.connected() && !lost:
		time.AfterFunc(idleTime, func() { p.leave(b) })
	default:
		p.leave(b)
	}
}

// leave closes a connection that has no users.
func (p *bastions) leave(b *bastion) {
	p.mu.Lock()
	unused := b.users == 0
	if unused && p.open[b.key] == b && !b.failed() {
		delete(p.open, b.key)
	}
	p.mu.Unlock()
	if !unused {
		return
	}
	b.cancel()
	<-b.done // soon: its context has ended
	if b.conn != nil {
		b.conn.Close()
	}
}

// forget removes a connection that was lost: the next user gets a new one.
func (p *bastions) forget(b *bastion) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[b.key] == b {
		delete(p.open, b.key)
	}
}

// retry forgets connections that could not be made: something has changed since.
func (p *bastions) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, b := range p.open {
		if b.failed() {
			delete(p.open, key)
		}
	}
}
