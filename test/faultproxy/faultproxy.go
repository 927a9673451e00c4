package faultproxy

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Damage is what happens to a connection at one point.
type Damage string

// Damages.
const (
	Stall    Damage = "stall"     // nothing more passes, either way, and nobody is told
	Reset    Damage = "reset"     // both sides get a TCP reset
	Close    Damage = "close"     // both sides get the end of the stream
	HalfOpen Damage = "half-open" // the server's side is closed, the client's stays open and silent
	Alter    Damage = "alter"     // one byte changes
)

// Faults are what a proxy does to its connections. The zero value passes everything on.
type Faults struct {
	Delay     time.Duration // of every chunk, each way
	Bandwidth int64         // bytes per second, each way; 0: no bound

	Damage Damage
	After  int64 // bytes from the server that pass before the damage

	BlackHole bool // connections are accepted, and what arrives is swallowed
}

// Proxy listens for connections and passes them on to a server.
type Proxy struct {
	Port int

	Connections atomic.Int64

	server   string
	listener net.Listener
	faults   atomic.Pointer[Faults]
	running  sync.WaitGroup
	closed   chan struct{}

	mu   sync.Mutex
	open map[*link]bool
}

// link is one connection through the proxy.
type link struct {
	client, server *net.TCPConn
	fromServer     atomic.Int64
	silent         atomic.Bool // nothing passes any more
	ended          chan struct{}
	end            func()
}

// Start starts a proxy on a port of 127.0.0.1 in front of a server's address.
func Start(server string, f Faults) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		Port: listener.Addr().(*net.TCPAddr).Port, server: server, listener: listener,
		closed: make(chan struct{}), open: make(map[*link]bool),
	}
	p.Set(f)
	p.running.Go(p.accept)
	return p, nil
}

// Set changes the faults of new and of open connections.
func (p *Proxy) Set(f Faults) { p.faults.Store(&f) }

// Cut resets all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.open {
		l.reset()
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	close(p.closed)
	p.listener.Close()
	p.Cut()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.Connections.Add(1)
		p.running.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	l := &link{client: client, ended: make(chan struct{})}
	l.end = sync.OnceFunc(func() { close(l.ended) })
	p.mu.Lock()
	p.open[l] = true
	p.mu.Unlock()
	select {
	case <-p.closed: // Close may not have seen it
		l.end()
	default:
	}
	defer func() {
		p.mu.Lock()
		delete(p.open, l)
		p.mu.Unlock()
		l.close()
	}()
	if p.faults.Load().BlackHole {
		l.silent.Store(true)
		p.pump(l, client, nil, nil)
		return
	}
	server, err := net.DialTimeout("tcp", p.server, 10*time.Second)
	if err != nil {
		return
	}
	p.mu.Lock()
	l.server = server.(*net.TCPConn)
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(l, client, l.server, nil) })
	both.Go(func() { p.pump(l, l.server, client, &l.fromServer) })
	both.Wait()
}

// pump passes what from sends on to to until one of them ends. passed counts what
// comes from the server.
func (p *Proxy) pump(l *link, from, to *net.TCPConn, passed *atomic.Int64) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			if l.silent.Load() && from != l.client {
				return // the client is not to know
			}
			if to != nil {
				to.CloseWrite()
			}
			return
		}
		if l.silent.Load() {
			continue
		}
		f := p.faults.Load()
		if !p.wait(l, f.pause(n)) {
			return
		}
		whole := int64(n)
		if passed != nil && f.Damage != "" {
			whole = min(whole, max(0, f.After-passed.Load()))
			passed.Add(int64(n))
		}
		if f.Damage == Alter && whole < int64(n) && passed.Load()-int64(n) <= f.After {
			buf[whole] ^= 0x55
			whole = int64(n)
		}
		if _, err := to.Write(buf[:whole]); err != nil {
			return
		}
		if whole < int64(n) {
			l.damage(f.Damage)
		}
	}
}

// pause returns how long n bytes take.
func (f *Faults) pause(n int) time.Duration {
	d := f.Delay
	if f.Bandwidth > 0 {
		d += time.Duration(n) * time.Second / time.Duration(f.Bandwidth)
	}
	return d
}

// wait waits, and reports whether the connection is still open.
func (p *Proxy) wait(l *link, d time.Duration) bool {
	if d == 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-l.ended:
	case <-p.closed:
	}
	return false
}

// damage damages the connection.
func (l *link) damage(d Damage) {
	switch d {
	case Reset:
		l.reset()
	case Close:
		l.close()
	case HalfOpen:
		l.silent.Store(true)
		l.server.Close()
	case Stall:
		l.silent.Store(true)
	}
}

// reset ends a connection by a reset to both sides.
func (l *link) reset() {
	l.client.SetLinger(0)
	if l.server != nil {
		l.server.SetLinger(0)
	}
	l.close()
}

func (l *link) close() {
	l.end()
	l.client.Close()
	if l.server != nil {
		l.server.Close()
	}
}
