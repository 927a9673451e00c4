package netctx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// machine makes system calls on sockets, here or in a guest.
type machine struct {
	t    testing.TB
	name string
	pid  int
	do   func(call) result
}

type call struct {
	Op      string
	FD      int            `json:",omitempty"`
	Args    [3]int         `json:",omitempty"`
	Addr    netip.AddrPort `json:",omitzero"`
	Family  int            `json:",omitempty"` // of the sockaddr, where it is not Addr's
	Flags   int            `json:",omitempty"` // of sendto
	Source  netip.Addr     `json:",omitzero"`  // sendto: by IP_PKTINFO
	Options []byte         `json:",omitempty"` // sendto: by IP_RETOPTS
	Data    []byte         `json:",omitempty"`
	Path    string         `json:",omitempty"` // of a Unix socket
}

type result struct {
	N     int
	Addr  netip.AddrPort
	Data  []byte
	Errno int
}

// perform makes one call. Sockets wait half a second at most, and a call on a socket
// with such a limit is not restarted after a signal (signal(7)). Signals of the Go
// runtime, and those of children that end, therefore have to wait.
func perform(c call) result {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return result{Errno: -1}
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	n, addr, data, err := perform1(c)
	r := result{N: n, Addr: addr, Data: data}
	var errno unix.Errno
	if errors.As(err, &errno) {
		r.Errno = int(errno)
	} else if err != nil {
		r.Errno = -1
	}
	return r
}

func perform1(c call) (n int, addr netip.AddrPort, data []byte, err error) {
	switch c.Op {
	case "socket":
		if n, err = unix.Socket(c.Args[0], c.Args[1]|unix.SOCK_CLOEXEC, c.Args[2]); err != nil {
			return
		}
		tv := unix.Timeval{Usec: 500_000}
		for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
			if err = unix.SetsockoptTimeval(n, unix.SOL_SOCKET, opt, &tv); err != nil {
				return
			}
		}
	case "bind", "connect":
		nr := uintptr(unix.SYS_BIND)
		if c.Op == "connect" {
			nr = unix.SYS_CONNECT
		}
		if c.Family == unix.AF_UNSPEC && !c.Addr.IsValid() {
			err = rawAddr(nr, c.FD, make([]byte, 16))
		} else {
			err = rawAddr(nr, c.FD, sockaddr(c.Family, c.Addr))
		}
	case "listen":
		err = unix.Listen(c.FD, 8)
	case "accept":
		var sa unix.Sockaddr
		n, sa, err = unix.Accept4(c.FD, unix.SOCK_CLOEXEC)
		addr = fromSockaddr(sa)
	case "sockname":
		var sa unix.Sockaddr
		sa, err = unix.Getsockname(c.FD)
		addr = fromSockaddr(sa)
	case "peername":
		var sa unix.Sockaddr
		sa, err = unix.Getpeername(c.FD)
		addr = fromSockaddr(sa)
	case "send":
		err = unix.Sendto(c.FD, c.Data, unix.MSG_NOSIGNAL, nil)
	case "sendto":
		n, err = sendto(c)
	case "recv":
		var sa unix.Sockaddr
		data = make([]byte, 2048)
		n, sa, err = unix.Recvfrom(c.FD, data, 0)
		data, addr = data[:max(n, 0)], fromSockaddr(sa)
	case "setsockopt":
		err = unix.SetsockoptString(c.FD, c.Args[0], c.Args[1], string(c.Data))
	case "close":
		err = unix.Close(c.FD)
	case "unix listen":
		if n, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = errors.Join(unix.Bind(n, &unix.SockaddrUnix{Name: c.Path}), unix.Listen(n, 8))
		}
	case "unix connect", "unix sendto":
		if n, err = unix.Socket(unix.AF_UNIX, c.Args[0]|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(n)
		if c.Op == "unix connect" {
			err = unix.Connect(n, &unix.SockaddrUnix{Name: c.Path})
		} else {
			err = unix.Sendto(n, []byte("x"), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: c.Path})
		}
	case "uring":
		n, err = uringCall(c)
	default:
		err = fmt.Errorf("unknown call %q", c.Op)
	}
	return
}

func rawAddr(nr uintptr, fd int, sa []byte) error {
	_, _, errno := unix.Syscall(nr, uintptr(fd), addressOf(sa), uintptr(len(sa)))
	if errno != 0 {
		return errno
	}
	return nil
}

// sockaddr returns the address in the kernel's form; family 0 means that of the address.
func sockaddr(family int, a netip.AddrPort) []byte {
	if family == 0 {
		family = unix.AF_INET6
		if a.Addr().Is4() {
			family = unix.AF_INET
		}
	}
	if family == unix.AF_INET {
		b := make([]byte, unix.SizeofSockaddrInet4)
		binary.NativeEndian.PutUint16(b, uint16(family))
		binary.BigEndian.PutUint16(b[2:], a.Port())
		four := a.Addr().As4()
		copy(b[4:], four[:])
		return b
	}
	b := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(b, uint16(family))
	binary.BigEndian.PutUint16(b[2:], a.Port())
	six := a.Addr().As16()
	copy(b[8:], six[:])
	return b
}

func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// sendto sends a datagram; without a destination if the socket is connected.
func sendto(c call) (int, error) {
	var oob []byte
	if c.Source.Is4() {
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: c.Source.As4()})
	} else if c.Source.IsValid() {
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: c.Source.As16()})
	}
	if c.Options != nil {
		oob = make([]byte, unix.CmsgSpace(len(c.Options)))
		h := (*unix.Cmsghdr)(pointerTo(oob))
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_RETOPTS
		h.SetLen(unix.CmsgLen(len(c.Options)))
		copy(oob[unix.CmsgLen(0):], c.Options)
	}
	var to unix.Sockaddr
	if c.Addr.IsValid() {
		if c.Addr.Addr().Is4() {
			to = &unix.SockaddrInet4{Addr: c.Addr.Addr().As4(), Port: int(c.Addr.Port())}
		} else {
			to = &unix.SockaddrInet6{Addr: c.Addr.Addr().As16(), Port: int(c.Addr.Port())}
		}
	}
	return unix.SendmsgN(c.FD, c.Data, oob, to, unix.MSG_NOSIGNAL|c.Flags)
}

func (r result) err() error {
	if r.Errno == 0 {
		return nil
	}
	return unix.Errno(r.Errno)
}

// The calls of a machine fail the test if they fail and their name ends in must;
// the others return the error.

func (m *machine) socket(family, kind, proto int) (int, error) {
	r := m.do(call{Op: "socket", Args: [3]int{family, kind, proto}})
	return r.N, r.err()
}

func (m *machine) mustSocket(family, kind, proto int) int {
	m.t.Helper()
	fd, err := m.socket(family, kind, proto)
	m.must("socket", err)
	return fd
}

func (m *machine) must(what string, err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %s: %v", m.name, what, err)
	}
}

func (m *machine) tcp4() int { m.t.Helper(); return m.mustSocket(unix.AF_INET, unix.SOCK_STREAM, 0) }
func (m *machine) tcp6() int { m.t.Helper(); return m.mustSocket(unix.AF_INET6, unix.SOCK_STREAM, 0) }
func (m *machine) udp4() int { m.t.Helper(); return m.mustSocket(unix.AF_INET, unix.SOCK_DGRAM, 0) }
func (m *machine) udp6() int { m.t.Helper(); return m.mustSocket(unix.AF_INET6, unix.SOCK_DGRAM, 0) }

func (m *machine) bind(fd int, addr string) error {
	return m.do(call{Op: "bind", FD: fd, Addr: netip.MustParseAddrPort(addr)}).err()
}

func (m *machine) connect(fd int, addr string) error {
	return m.do(call{Op: "connect", FD: fd, Addr: netip.MustParseAddrPort(addr)}).err()
}

func (m *machine) listen(fd int) error { return m.do(call{Op: "listen", FD: fd}).err() }
func (m *machine) close(fd int)        { m.t.Helper(); m.must("close", m.do(call{Op: "close", FD: fd}).err()) }

func (m *machine) sockname(fd int) netip.AddrPort {
	m.t.Helper()
	r := m.do(call{Op: "sockname", FD: fd})
	m.must("getsockname", r.err())
	return r.Addr
}

func (m *machine) peername(fd int) netip.AddrPort {
	m.t.Helper()
	r := m.do(call{Op: "peername", FD: fd})
	m.must("getpeername", r.err())
	return r.Addr
}

func (m *machine) sendto(fd int, data, addr string) error {
	return m.do(call{Op: "sendto", FD: fd, Data: []byte(data), Addr: netip.MustParseAddrPort(addr)}).err()
}

func (m *machine) recv(fd int) (string, netip.AddrPort, error) {
	r := m.do(call{Op: "recv", FD: fd})
	return string(r.Data), r.Addr, r.err()
}

func (m *machine) setsockopt(fd, level, opt int, value []byte) error {
	return m.do(call{Op: "setsockopt", FD: fd, Args: [3]int{level, opt}, Data: value}).err()
}

func word(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// server binds and listens.
func (m *machine) server(family int, addr string) int {
	m.t.Helper()
	fd := m.mustSocket(family, unix.SOCK_STREAM, 0)
	// Connections of the test before may be in TIME_WAIT.
	m.must("set REUSEADDR", m.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
	m.must("bind "+addr, m.bind(fd, addr))
	m.must("listen", m.listen(fd))
	return fd
}

// server6 listens for IPv6 alone, as nginx, sshd and Postfix do.
func (m *machine) server6(addr string) int {
	m.t.Helper()
	fd := m.tcp6()
	m.must("set REUSEADDR", m.setsockopt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, word(1)))
	m.must("set V6ONLY", m.setsockopt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, word(1)))
	m.must("bind "+addr, m.bind(fd, addr))
	m.must("listen", m.listen(fd))
	return fd
}

// disconnect is connect with AF_UNSPEC.
func (m *machine) disconnect(fd int) {
	m.t.Helper()
	m.must("disconnect", m.do(call{Op: "connect", FD: fd}).err())
}

// receiver binds a datagram socket.
func (m *machine) receiver(family int, addr string) int {
	m.t.Helper()
	fd := m.mustSocket(family, unix.SOCK_DGRAM, 0)
	m.must("bind "+addr, m.bind(fd, addr))
	return fd
}
