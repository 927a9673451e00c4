package transport

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// maxMisses of keepalives are the end of a connection.
const maxMisses = 3

// endGrace is how long the last words of a session that was given up are
// waited for.
const endGrace = time.Second

// Conn is a connection to a host. Its methods may be used side by side. Where
// sshd bounds the sessions of one connection (MaxSessions), further ones take
// connections of their own.
type Conn struct {
	settings Settings
	dialer   *Dialer
	client   *ssh.Client
	done     chan struct{} // closed when the connection has ended
	lost     atomic.Pointer[error]
	close    func()

	mu     sync.Mutex // one more connection is made at a time
	closed bool
	more   []*Conn
}

// newConn watches over a connection; received counts the bytes that come from the
// host, and release is called when it has ended.
func newConn(d *Dialer, s Settings, client *ssh.Client, received *atomic.Int64, release func()) *Conn {
	c := &Conn{settings: s, dialer: d, client: client, done: make(chan struct{})}
	c.close = sync.OnceFunc(func() {
		client.Close() // of a connection that is lost already: no news
		<-c.done
		release()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closed = true
		for _, other := range c.more {
			other.close()
		}
	})
	go func() {
		err := client.Wait()
		c.lose(fmt.Errorf("connection lost: %w", err))
		close(c.done)
	}()
	go c.keepAlive(s.KeepAlive, received)
	return c
}

// Name of the host, as Settings.Name.
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
	go func() { answer <- c.ask() }()
	select {
	case err := <-answer:
		return time.Since(start), c.explain(err)
	case <-ctx.Done():
		return 0, fmt.Errorf("ask %s for an answer: %w", c.settings, context.Cause(ctx))
	}
}

// ask sshd for any answer; it refuses this request, and that is one.
func (c *Conn) ask() error {
	_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
	return err
}

// keepAlive asks the host now and then, and closes a connection that is dead:
// without it, a session whose host lost power waits for TCP, which may be for
// hours. Whatever the host sends is an answer: behind a slow upload the question
// itself may wait for minutes, and room for more of the upload is granted.
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
					c.lose(fmt.Errorf("connection lost: no answer for %s", every*maxMisses))
					c.client.Close()
					return
				}
				continue
			}
			asked = true
			go func() { answers <- c.ask() }()
		}
	}
}

// lose notes why the connection ended; the first reason counts.
func (c *Conn) lose(err error) { c.lost.CompareAndSwap(nil, &err) }

// awaitLoss waits a moment: what has just ended may be the whole connection, whose
// reason is the better one.
func (c *Conn) awaitLoss() {
	select {
	case <-c.done:
	case <-time.After(100 * time.Millisecond):
	}
}

// explain puts the reason in place of what the end of a connection looks like
// from above, and the host's name before it.
func (c *Conn) explain(err error) error {
	if err == nil {
		return nil
	}
	if peerClosed(err) {
		c.awaitLoss()
	}
	if lost := c.lost.Load(); lost != nil {
		return &unreachable{fmt.Errorf("%s: %w", c.settings, *lost)}
	}
	return fmt.Errorf("%s: %w", c.settings, err)
}
