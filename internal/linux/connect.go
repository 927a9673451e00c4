package linux

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// connectTimeout bounds a connection whose context has no deadline.
const connectTimeout = time.Minute

// Connect reports whether somebody accepts TCP connections at an address. Package net
// would do the same and make vsnode 300 KB larger.
func Connect(ctx context.Context, addr netip.AddrPort) error {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err == nil || !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	ready, err := Poll(ctx, connectTimeout, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
	switch {
	case err != nil:
		return err
	case !ready:
		return unix.ETIMEDOUT
	}
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || errno == 0 {
		return err
	}
	return unix.Errno(errno)
}
