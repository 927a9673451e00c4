package fakesshd

import (
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// connection is one connection, which may have the server's fault.
type connection struct {
	*Server
	conn   net.Conn
	faulty bool

	done     chan struct{} // closed when the connection has ended
	sessions atomic.Int64
}

// reach is called when the connection reaches a phase. If its fault is there, it does
// not return before the connection has ended, and reports that.
func (c *connection) reach(p Phase) (ended bool) {
	if !c.faulty || c.options.At != p {
		return false
	}
	switch c.options.Fault {
	case Reset:
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.conn.Close()
	case Close:
		c.conn.Close()
	case Hang:
		select {
		case <-c.done:
		case <-c.ctx.Done():
		}
	}
	return true
}

func (s *Server) serve(raw net.Conn, number int) {
	refusal, ok := s.admit()
	if !ok {
		s.Dropped.Add(1)
		io.WriteString(raw, refusal)
		return
	}
	authenticated := sync.OnceFunc(s.authenticated)
	defer authenticated()
	c := &connection{
		Server: s, conn: raw, done: make(chan struct{}),
		faulty: s.options.Fault != "" && (s.options.First == 0 || number <= s.options.First),
	}
	var end sync.Once
	watched := &watchedConn{Conn: raw, c: c, ended: func() { end.Do(func() { close(c.done) }) }}
	defer watched.ended()
	if c.faulty && s.options.At == Connected && s.options.Fault == Hang {
		io.Copy(io.Discard, raw) // until the client hangs up
		return
	}
	if c.reach(Connected) {
		return
	}
	io.WriteString(raw, s.options.Chatter)
	config := *s.config
	config.PublicKeyCallback = func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		c.reach(Authenticate)
		return s.config.PublicKeyCallback(meta, key)
	}
	conn, chans, reqs, err := ssh.NewServerConn(watched, &config)
	if err != nil {
		if s.options.AuthPenalty > 0 {
			s.Penalise(s.options.AuthPenalty)
		}
		return
	}
	authenticated()
	s.Logins.Add(1)
	go ssh.DiscardRequests(reqs)
	c.channels(chans)
	conn.Wait()
}

// watchedConn is the stream below SSH: the handshake's fault happens in it, and it
// notices the end of the connection.
type watchedConn struct {
	net.Conn
	c      *connection
	ended  func()
	writes int
}

func (w *watchedConn) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.ended()
	}
	return n, err
}

// Write passes the version and the list of algorithms on, and then the fault of
// the handshake happens.
func (w *watchedConn) Write(p []byte) (int, error) {
	if w.writes++; w.writes > 2 && w.c.reach(Handshake) {
		return 0, net.ErrClosed
	}
	return w.Conn.Write(p)
}

func (c *connection) channels(chans <-chan ssh.NewChannel) {
	for open := range chans {
		switch {
		case open.ChannelType() == "direct-tcpip" && c.options.Forward:
			go forward(open)
			continue
		case open.ChannelType() != "session":
			open.Reject(ssh.UnknownChannelType, "unsupported channel type")
			continue
		case c.options.RefuseSessions != "":
			open.Reject(ssh.Prohibited, c.options.RefuseSessions)
			continue
		case c.options.MaxSessions > 0 && c.sessions.Load() >= int64(c.options.MaxSessions):
			open.Reject(ssh.ConnectionFailed, "open failed")
			continue
		}
		c.sessions.Add(1)
		c.Sessions.Add(1)
		c.running.Go(func() {
			defer c.sessions.Add(-1)
			c.session(open)
		})
	}
}

func (c *connection) session(open ssh.NewChannel) {
	if c.reach(Session) {
		return
	}
	ch, reqs, err := open.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for r := range reqs {
		if r.Type == "exec" {
			if c.reach(Command) {
				return
			}
			r.Reply(true, nil)
			io.WriteString(ch, c.options.Prompt)
			if c.faulty && c.options.At == Running {
				io.WriteString(ch, "begun\n")
			}
			if c.reach(Running) {
				return
			}
			go ssh.DiscardRequests(reqs)
			status := c.options.Exec(c.Server, string(r.Payload[4:]), &requestChannel{Channel: ch, c: c})
			ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			return
		}
		if r.WantReply {
			r.Reply(true, nil)
		}
	}
}

// requestChannel is a channel on which the fault of a request happens: with the first
// bytes that a client sends to a command.
type requestChannel struct {
	ssh.Channel
	c *connection
}

func (r *requestChannel) Read(p []byte) (int, error) {
	n, err := r.Channel.Read(p)
	if n > 0 && r.c.reach(Request) {
		return 0, io.EOF
	}
	return n, err
}

// forward connects a channel with the address that it names (RFC 4254, 7.2).
func forward(open ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(open.ExtraData(), &to); err != nil {
		open.Reject(ssh.ConnectionFailed, "bad request")
		return
	}
	conn, err := net.Dial("tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		open.Reject(ssh.ConnectionFailed, "Connection refused")
		return
	}
	ch, reqs, err := open.Accept()
	if err != nil {
		conn.Close()
		return
	}
	go ssh.DiscardRequests(reqs)
	go func() {
		io.Copy(conn, ch)
		conn.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(ch, conn)
	ch.Close()
	conn.Close()
}
