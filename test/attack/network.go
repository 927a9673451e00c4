package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// anyHigh is a port that no test gives to a guest.
const anyHigh = 41999

var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// networkRows are about addresses and ports that are not the guest's, and the
// localhost of others. In nat mode the guest has a network of its own, where
// it may take any address; only what it reaches counts.
func networkRows(o *outside) []row {
	var rows []row
	add := func(name, needs string, try func(*outside) (bool, string)) {
		rows = append(rows, row{name, needs, try})
	}
	bind := func(name, needs string, kind int, at func(*outside) netip.AddrPort, options ...int) {
		add(name, needs, func(o *outside) (bool, string) { return tryBind(kind, at(o), options...) })
	}
	otherAt := func(port int) func(*outside) netip.AddrPort {
		return func(o *outside) netip.AddrPort { return netip.AddrPortFrom(o.other, uint16(port)) }
	}
	bind("bind-other", "other", unix.SOCK_STREAM, otherAt(anyHigh))
	bind("bind-other-ephemeral", "other", unix.SOCK_STREAM, otherAt(0))
	bind("bind-other-udp", "other", unix.SOCK_DGRAM, otherAt(anyHigh))
	bind("bind-other-no-port", "other", unix.SOCK_STREAM, otherAt(0), unix.IP_BIND_ADDRESS_NO_PORT)
	add("bind-other-as-ipv6", "other", func(o *outside) (bool, string) {
		return tryBind(unix.SOCK_STREAM, netip.AddrPortFrom(netip.AddrFrom16(o.other.As16()), anyHigh))
	})
	add("send-from-other", "other", func(o *outside) (bool, string) { return sendFrom(o.other) })
	if o.host.IsValid() && !slices.Contains(o.own, o.host) {
		bind("bind-host", "host", unix.SOCK_STREAM, func(o *outside) netip.AddrPort {
			return netip.AddrPortFrom(o.host, anyHigh)
		})
		add("send-from-host", "host", func(o *outside) (bool, string) { return sendFrom(o.host) })
	}
	if o.sharesNetwork() {
		bind("bind-freebind", "", unix.SOCK_STREAM, func(*outside) netip.AddrPort {
			return netip.MustParseAddrPort("203.0.113.251:41999")
		}, unix.IP_FREEBIND)
		bind("bind-multicast", "", unix.SOCK_DGRAM, func(*outside) netip.AddrPort {
			return netip.MustParseAddrPort("224.0.0.251:41999")
		})
		add("bind-device", "", func(*outside) (bool, string) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return false, err.Error()
			}
			defer unix.Close(fd)
			// For lo the call reports success and does nothing (see TestBindToLo).
			links, err := net.Interfaces()
			if err != nil || len(links) < 2 {
				return false, "no device but lo"
			}
			return resultOf(unix.BindToDevice(fd, links[1].Name), "bound to "+links[1].Name)
		})
	}
	if o.mode == "shared" {
		for _, at := range []string{"own", "0.0.0.0", "::"} {
			add("bind-other-port-"+at, "other-port", func(o *outside) (bool, string) {
				return tryBind(unix.SOCK_STREAM, netip.AddrPortFrom(o.at(at), uint16(o.otherPort)))
			})
			add("bind-unowned-port-"+at, "", func(o *outside) (bool, string) {
				return tryBind(unix.SOCK_STREAM, netip.AddrPortFrom(o.at(at), anyHigh))
			})
			add("bind-unowned-udp-port-"+at, "", func(o *outside) (bool, string) {
				return tryPort(netip.AddrPortFrom(o.at(at), anyHigh))
			})
			add("bind-unowned-low-udp-port-"+at, "", func(o *outside) (bool, string) {
				return tryPort(netip.AddrPortFrom(o.at(at), 53))
			})
		}
		add("connect-other-port-localhost", "other-port", func(o *outside) (bool, string) {
			return tryConnect(netip.AddrPortFrom(localhost, uint16(o.otherPort)), netip.Addr{})
		})
		add("name-ephemeral-port", "", func(*outside) (bool, string) {
			fd, err := open(unix.AF_INET, unix.SOCK_DGRAM)
			if err != nil {
				return false, err.Error()
			}
			defer unix.Close(fd)
			const localPortRange = 51 // IP_LOCAL_PORT_RANGE of linux/in.h (kernel 6.3)
			return resultOf(unix.SetsockoptInt(fd, unix.IPPROTO_IP, localPortRange, anyHigh<<16|anyHigh), "named")
		})
	}
	if o.sharesNetwork() {
		add("hold-tcp-ports", "", func(o *outside) (bool, string) { return holdPorts(unix.SOCK_STREAM) })
		add("hold-udp-ports", "", func(o *outside) (bool, string) { return holdPorts(unix.SOCK_DGRAM) })
	}
	for _, text := range []string{"127.0.0.1", "127.9.9.9", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::1", "::"} {
		a := netip.MustParseAddr(text)
		add("connect-host-"+text, "loop", func(o *outside) (bool, string) {
			return tryConnect(netip.AddrPortFrom(a, uint16(o.loop)), netip.Addr{})
		})
		add("echo-host-"+text, "loop-udp", func(o *outside) (bool, string) {
			return echo(netip.AddrPortFrom(a, uint16(o.loopUDP)))
		})
		// A service on every address takes every client from 127.0.0.0/8 for
		// a user of its host.
		add("connect-host-wildcard-"+text, "wildcard", func(o *outside) (bool, string) {
			return tryConnect(netip.AddrPortFrom(a, uint16(o.wildcard)), netip.Addr{})
		})
	}
	add("connect-host-wildcard-from-localhost", "wildcard", func(o *outside) (bool, string) {
		to := o.host
		if !to.IsValid() && len(o.own) > 0 {
			to = o.own[0]
		}
		return tryConnect(netip.AddrPortFrom(to, uint16(o.wildcard)), localhost)
	})
	add("connect-host-fastopen", "loop", func(o *outside) (bool, string) {
		fd, err := open(unix.AF_INET, unix.SOCK_STREAM)
		if err != nil {
			return false, err.Error()
		}
		defer unix.Close(fd)
		to := &unix.SockaddrInet4{Addr: localhost.As4(), Port: o.loop}
		return resultOf(unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL, to), "sent")
	})
	for _, text := range []string{"169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"} {
		at := func(o *outside) netip.AddrPort {
			return netip.AddrPortFrom(netip.MustParseAddr(text), uint16(o.metadata))
		}
		add("connect-metadata-"+text, "metadata", func(o *outside) (bool, string) { return tryConnect(at(o), netip.Addr{}) })
		add("echo-metadata-"+text, "metadata", func(o *outside) (bool, string) { return echo(at(o)) })
	}
	add("connect-metadata-as-ipv6", "metadata", func(o *outside) (bool, string) {
		a := netip.MustParseAddr("::ffff:169.254.169.254")
		return tryConnect(netip.AddrPortFrom(a, uint16(o.metadata)), netip.Addr{})
	})
	add("connect-other-localhost", "other-loop", func(o *outside) (bool, string) {
		return tryConnect(o.otherLoop, netip.Addr{})
	})
	add("connect-other-localhost-ipv6", "other-loop6", func(o *outside) (bool, string) {
		return tryConnect(o.otherLoop6, netip.Addr{})
	})
	add("connect-private", "private", func(o *outside) (bool, string) { return tryConnect(o.private, netip.Addr{}) })
	add("connect-private-as-ipv6", "private", func(o *outside) (bool, string) {
		return tryConnect(netip.AddrPortFrom(netip.AddrFrom16(o.private.Addr().As16()), o.private.Port()), netip.Addr{})
	})
	if o.sharesNetwork() { // else it leaves the guest, and the host drops it
		add("send-private", "private", func(o *outside) (bool, string) { return send(o.private) })
	}
	// Any 127.x.y.z means the guest's own localhost: binding it does no harm.
	if o.sharesNetwork() {
		bind("bind-other-localhost-ipv6", "other-loop6", unix.SOCK_STREAM, func(o *outside) netip.AddrPort {
			return netip.AddrPortFrom(o.otherLoop6.Addr(), anyHigh)
		})
	}
	return rows
}

func (o *outside) at(name string) netip.Addr {
	if name == "own" {
		if len(o.own) == 0 {
			return netip.IPv4Unspecified()
		}
		return o.own[0]
	}
	return netip.MustParseAddr(name)
}

// open makes a socket that waits half a second at most.
func open(family, kind int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	tv := unix.Timeval{Usec: 500_000}
	for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &tv); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	}
	return &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
}

func tryBind(kind int, at netip.AddrPort, options ...int) (bool, string) {
	fd, err := open(family(at.Addr()), kind)
	if err != nil {
		return false, err.Error()
	}
	defer unix.Close(fd)
	for _, o := range options {
		// A refusal here is fine, but not enough: bind must refuse as well.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, o, 1)
	}
	return resultOf(unix.Bind(fd, sockaddr(at)), "bound to "+at.String())
}

// holdPorts takes ports that the kernel chooses until there is none left. To get half
// of them is to have reached too many.
func holdPorts(kind int) (bool, string) {
	const half = (60999 - 32768 + 1) / 2 // of the default net.ipv4.ip_local_port_range
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	var held []int
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for len(held) < half {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			held = append(held, fd)
			err = unix.Bind(fd, &unix.SockaddrInet4{})
		}
		if err != nil {
			return false, fmt.Sprintf("after %d: %v", len(held), err)
		}
	}
	return true, fmt.Sprintf("holds %d ports", len(held))
}

// tryPort asks for a UDP port. Getting another one is no success.
func tryPort(at netip.AddrPort) (bool, string) {
	fd, err := open(family(at.Addr()), unix.SOCK_DGRAM)
	if err != nil {
		return false, err.Error()
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		return false, err.Error()
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return true, err.Error()
	}
	port := 0
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = sa.Port
	case *unix.SockaddrInet6:
		port = sa.Port
	}
	return port == int(at.Port()), fmt.Sprintf("port %d", port)
}

func tryConnect(to netip.AddrPort, from netip.Addr) (bool, string) {
	fd, err := open(family(to.Addr()), unix.SOCK_STREAM)
	if err != nil {
		return false, err.Error()
	}
	defer unix.Close(fd)
	if from.IsValid() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
			return false, "bind: " + err.Error()
		}
	}
	return resultOf(unix.Connect(fd, sockaddr(to)), "connected to "+to.String())
}

// echo sends twice: to an address, and on a connected socket.
func echo(to netip.AddrPort) (bool, string) {
	detail := ""
	for _, connected := range []bool{false, true} {
		fd, err := open(family(to.Addr()), unix.SOCK_DGRAM)
		if err != nil {
			return false, err.Error()
		}
		defer unix.Close(fd)
		dest := sockaddr(to)
		if connected {
			if err := unix.Connect(fd, dest); err != nil {
				detail = err.Error()
				continue
			}
			dest = nil
		}
		if err := unix.Sendto(fd, []byte("echo"), unix.MSG_NOSIGNAL, dest); err != nil {
			detail = err.Error()
			continue
		}
		if _, _, err := unix.Recvfrom(fd, make([]byte, 16), 0); err != nil {
			detail = "no answer: " + err.Error()
			continue
		}
		return true, "answered by " + to.String()
	}
	return false, detail
}

func send(to netip.AddrPort) (bool, string) {
	fd, err := open(family(to.Addr()), unix.SOCK_DGRAM)
	if err != nil {
		return false, err.Error()
	}
	defer unix.Close(fd)
	return resultOf(unix.Sendto(fd, []byte("x"), unix.MSG_NOSIGNAL, sockaddr(to)), "sent to "+to.String())
}

// sendFrom sends a datagram with a source address of its choice (IP_PKTINFO).
func sendFrom(from netip.Addr) (bool, string) {
	fd, err := open(family(from), unix.SOCK_DGRAM)
	if err != nil {
		return false, err.Error()
	}
	defer unix.Close(fd)
	var oob []byte
	if from.Is4() {
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4()})
	} else {
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.As16()})
	}
	_, err = unix.SendmsgN(fd, []byte("x"), oob, sockaddr(netip.AddrPortFrom(from, 9)), unix.MSG_NOSIGNAL)
	return resultOf(err, "sent from "+from.String())
}
