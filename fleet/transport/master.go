package transport

import (
	"context"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// masterTimeout is how long a running ssh may take to answer on its socket.
const masterTimeout = 5 * time.Second

// dialMaster returns a connection that a running ssh of this user shares (ControlMaster),
// or nil: then another one is made. The master has checked the host key and logged in; no
// key is needed, and no touch of a security key.
func (d *Dialer) dialMaster(ctx context.Context, s Settings) *Conn {
	if s.ControlPath == "" {
		return nil
	}
	path, err := expandHome(s.ControlPath)
	if err != nil {
		return nil
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSocket == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, masterTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil // of an ssh that has ended
	}
	if !ownPeer(conn.(*net.UnixConn)) {
		conn.Close()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	counted := &countedConn{Conn: conn}
	c, chans, reqs, err := ssh.NewControlClientConn(counted)
	if !stop() && err == nil {
		c.Close()
		return nil
	}
	if err != nil {
		conn.Close()
		return nil
	}
	s.ControlPath = "" // further sessions may need a connection of their own
	shared := newConn(d, s, ssh.NewClient(c, chans, reqs), &counted.received, nil, func() {})
	shared.shared = true
	return shared
}

// ownPeer reports whether the process at the other end of a socket is this user's or
// root's. In a directory that others can write to, another user could wait there for
// commands and passwords.
func ownPeer(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	own := false
	err = raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, unix.SO_PEERCRED)
		own = err == nil && (int(peer.Uid) == os.Geteuid() || peer.Uid == 0)
	})
	return err == nil && own
}

// countedConn counts the bytes from the host.
type countedConn struct {
	net.Conn
	received atomic.Int64
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}
