package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// dialTimeout bounds a connection to a guest's own service: it is on this machine.
const dialTimeout = 10 * time.Second

// Dial connects to a TCP service as a program of the running guest would: 127.0.0.1 is
// the guest's own, in every network mode.
func (h *Host) Dial(ctx context.Context, name string, addr netip.AddrPort) (*net.TCPConn, error) {
	v, err := h.look(name)
	if err == nil {
		err = v.SameNamespace(v.initPID)
	}
	if err != nil {
		return nil, fmt.Errorf("guest %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := v.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("guest %s: connect to %s: %w", name, addr, err)
	}
	return conn, nil
}

func (v view) dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	family, sockaddr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sockaddr = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	f, err := procctx.Socket(ctx, v.initPID, v.cgroup, v.NAT, family)
	if err != nil {
		return nil, err
	}
	defer f.Close() // FileConn has a descriptor of its own
	fd := int(f.Fd())
	if err := unix.SetNonblock(fd, true); err != nil { // Fd makes it blocking
		return nil, err
	}
	if err := unix.Connect(fd, sockaddr); errors.Is(err, unix.EINPROGRESS) {
		err = connected(ctx, fd)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// connected waits until a connection is made, and returns why it is not.
func connected(ctx context.Context, fd int) error {
	ready, err := linux.Poll(ctx, dialTimeout, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
	if err != nil {
		return err
	}
	if !ready {
		return unix.ETIMEDOUT
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || errno == 0 {
		return err
	}
	return unix.Errno(errno)
}
