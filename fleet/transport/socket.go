package transport

import (
	"bufio"
	"bytes"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket is the stream below an SSH connection. It keeps what the other side sent
// first: sshd says there, before its version, why it drops a connection.
type socket struct {
	net.Conn
	raw  syscall.RawConn // nil for a channel through a bastion, which is not TCP
	in   *bufio.Reader
	head []byte // the first bytes

	received atomic.Int64 // bytes from the other side
}

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c}
	if tcp, ok := c.(*net.TCPConn); ok {
		// A SyscallConn fails on a closed connection, as reads will.
		s.raw, _ = tcp.SyscallConn()
	}
	// x/crypto reads the version byte by byte, and then into a buffer of its own.
	s.in = bufio.NewReaderSize(quickACKReader{s}, 256)
	return s
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if room := 256 - len(s.head); room > 0 {
		s.head = append(s.head, p[:min(n, room)]...)
	}
	return n, err
}

// hasVersion reports whether sshd has sent its version, and so did not drop the
// connection.
func (s *socket) hasVersion() bool {
	return bytes.HasPrefix(s.head, []byte("SSH-")) || bytes.Contains(s.head, []byte("\nSSH-"))
}

type quickACKReader struct{ s *socket }

// Read acknowledges at once what it read. sshd sends its answer in two writes with
// Nagle's algorithm on: the second waits for the ACK of the first, which the
// kernel delays by 40 ms. TCP_QUICKACK avoids that, for one answer
// only (tcp(7): "This flag is not permanent").
func (r quickACKReader) Read(p []byte) (int, error) {
	n, err := r.s.Conn.Read(p)
	r.s.received.Add(int64(n))
	if r.s.raw != nil && n > 0 {
		// If the connection has been closed meanwhile, the next read fails.
		_ = r.s.raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		})
	}
	return n, err
}
