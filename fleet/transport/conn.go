package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxMisses is the number of unanswered keepalives in a row that ends a connection.
const maxMisses = 3

// endGrace is how long to wait for the last output of a session that was given up.
const endGrace = time.Second

// Conn is a connection to a host. Its methods may be called concurrently. If
// sshd bounds the sessions of one connection (MaxSessions), further connections
// are made for further sessions.
type Conn struct {
	settings Settings
	dialer   *Dialer
	client   *ssh.Client
	done     chan struct{} // closed when the connection has ended
	loss     atomic.Pointer[error]
	close    func()
	sessions atomic.Int32 // that are open
	terminal atomic.Bool  // sudo wants one (requiretty)
	shared   bool         // it is that of another process: see dialMaster

	mu     sync.Mutex // extra connections are made one at a time
	closed bool
	extra  []*Conn
}

// newConn returns a connection with its keepalive. received counts the bytes that
// come from the host; release is called when the connection has ended. via is
// the bastion on the way, if there is one.
func newConn(d *Dialer, s Settings, client *ssh.Client, received *atomic.Int64, via *bastion, release func()) *Conn {
	c := &Conn{settings: s, dialer: d, client: client, done: make(chan struct{})}
	c.close = sync.OnceFunc(func() {
		client.Close() // fails if the connection is lost already
		<-c.done
		release()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closed = true
		for _, other := range c.extra {
			other.close()
		}
	})
	go func() {
		err := client.Wait()
		if via != nil && via.lostWith(err) {
			err = &lostBastionError{via.settings.Address}
		}
		c.setLoss(ofKind(kindLost, "connection lost: %w", err))
		close(c.done)
	}()
	go c.keepAlive(s.KeepAlive, received)
	return c
}

// Name returns the host's name, as Settings.Name.
func (c *Conn) Name() string { return c.settings.Name }

// Close ends the connection and every session on it.
func (c *Conn) Close() error {
	c.close()
	return nil
}

// RTT measures how long the host's sshd takes to answer.
func (c *Conn) RTT(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	answer := make(chan error, 1)
	go func() { answer <- c.ping() }()
	select {
	case err := <-answer:
		return time.Since(start), c.explain(err)
	case <-ctx.Done():
		return 0, fmt.Errorf("ask %s for an answer: %w", c.settings, context.Cause(ctx))
	}
}

// ping waits for any answer of sshd's. sshd refuses this request, which is an answer. A
// connection that is shared passes on no such request, but sessions; to refuse one is an
// answer, too.
func (c *Conn) ping() error {
	if !c.shared {
		_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
		return err
	}
	session, reqs, err := c.client.OpenChannel("session", nil)
	var refused *ssh.OpenChannelError
	switch {
	case errors.As(err, &refused):
		return nil
	case err != nil:
		return err
	}
	go ssh.DiscardRequests(reqs)
	return session.Close()
}

// keepAlive pings the host at intervals, and closes a connection that is dead:
// without it, a session whose host lost power waits for TCP, which may take
// hours. Any bytes from the host count as an answer: behind a slow upload the ping
// itself may wait for minutes, while the host keeps enlarging the upload's window.
func (c *Conn) keepAlive(every time.Duration, received *atomic.Int64) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	answers := make(chan error, 1)
	asked, misses, last := false, 0, received.Load()
	for {
		select {
		case <-c.done:
			return
		case err := <-answers:
			if err != nil {
				return // the connection has ended
			}
			asked, misses = false, 0
		case <-tick.C:
			if now := received.Load(); now != last {
				misses, last = 0, now
			}
			if asked {
				if misses++; misses == maxMisses {
					c.setLoss(ofKind(kindLost, "connection lost: no answer for %s", every*maxMisses))
					c.client.Close()
					return
				}
				continue
			}
			asked = true
			go func() { answers <- c.ping() }()
		}
	}
}

// setLoss records why the connection ended; the first reason counts.
func (c *Conn) setLoss(err error) { c.loss.CompareAndSwap(nil, &err) }

// awaitLoss waits a moment, as the whole connection may have just ended: then its
// reason is the better one.
func (c *Conn) awaitLoss() {
	select {
	case <-c.done:
	case <-time.After(lossGrace):
	}
}

// lossGrace is how long the end of a connection may take to be noticed once one of its
// streams has ended. That of a bastion is noticed in the same time.
const lossGrace = 100 * time.Millisecond

// explain puts the host's name before an error. If the connection has ended, the
// reason for that takes the error's place.
func (c *Conn) explain(err error) error {
	if err == nil {
		return nil
	}
	if peerClosed(err) {
		c.awaitLoss()
		if c.settings.Via != nil && c.loss.Load() == nil {
			c.awaitLoss() // it waits for the bastion's itself
		}
	}
	if lost := c.loss.Load(); lost != nil {
		return &unreachableError{fmt.Errorf("%s: %w", c.settings, *lost)}
	}
	return fmt.Errorf("%s: %w", c.settings, err)
}
