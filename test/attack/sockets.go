package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketRows are kinds of sockets that no address hook sees.
func socketRows(o *outside) []row {
	var rows []row
	add := func(name, needs string, try func(*outside) (bool, string)) {
		rows = append(rows, row{name, needs, try})
	}
	for _, s := range []struct {
		name                string
		family, kind, proto int
		private             bool // fine where the network is the guest's own
	}{
		{"raw-socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, false},
		{"raw-socket-ipv6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, false},
		{"raw-socket-own-headers", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, false},
		{"packet-socket", unix.AF_PACKET, unix.SOCK_RAW, 0x0300, false}, // ETH_P_ALL
		{"packet-socket-cooked", unix.AF_PACKET, unix.SOCK_DGRAM, 0x0300, false},
		{"packet-socket-of-1996", unix.AF_INET, unix.SOCK_PACKET, 0x0300, false}, // the kernel makes it one of AF_PACKET
		{"xdp-socket", unix.AF_XDP, unix.SOCK_RAW, 0, false},
		{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0, false},
		{"sock-diag", unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_SOCK_DIAG, false},
		{"audit", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT, false},
		{"netlink-xfrm", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM, false},
		{"netlink-generic", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC, false},
		{"netlink-netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, true},
		{"af-alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0, false},
		{"af-key", unix.AF_KEY, unix.SOCK_RAW, 2, false},
		{"af-rxrpc", unix.AF_RXRPC, unix.SOCK_DGRAM, unix.AF_INET, false},
		{"af-bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1, false},
		{"af-tipc", unix.AF_TIPC, unix.SOCK_DGRAM, 0, false},
		{"udp-lite", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, true},
		{"mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, true},
		{"sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, true},
		{"dccp", unix.AF_INET, 6, 33, true},
		{"l2tp", unix.AF_INET, unix.SOCK_DGRAM, 115, true},
		{"smc", unix.AF_INET, unix.SOCK_STREAM, 256, true},
	} {
		if s.private && !o.sharesNetwork() {
			continue
		}
		add(s.name, "", func(*outside) (bool, string) {
			fd, err := unix.Socket(s.family, s.kind|unix.SOCK_CLOEXEC, s.proto)
			if err == nil {
				unix.Close(fd)
			}
			return resultOf(err, "socket made")
		})
	}
	add("x32-socket", "", func(*outside) (bool, string) {
		// A filter that compares numbers only would let those of another ABI pass.
		fd, _, errno := unix.Syscall(unix.SYS_SOCKET|1<<30, unix.AF_PACKET, unix.SOCK_RAW, 0)
		if errno == 0 {
			unix.Close(int(fd))
			return true, "socket made"
		}
		return false, errno.Error()
	})
	add("raw-socket-in-new-namespaces", "", func(*outside) (bool, string) {
		cmd := exec.Command("/proc/self/exe", "--raw-inside")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{Size: 1}},
		}
		return runSelf(cmd)
	})
	for _, ns := range []struct {
		name  string
		flags uintptr
	}{{"new-user-namespace", unix.CLONE_NEWUSER}, {"new-network-namespace", unix.CLONE_NEWNET}} {
		add(ns.name, "", func(*outside) (bool, string) {
			cmd := exec.Command("/proc/self/exe", "--nothing-inside")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: ns.flags}
			return runSelf(cmd)
		})
	}
	add("io-uring", "", func(*outside) (bool, string) {
		var params [120]byte
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
		if errno == 0 {
			unix.Close(int(fd))
			return true, "ring made"
		}
		return false, errno.Error()
	})
	if o.sharesNetwork() {
		add("change-addresses", "", changeAddresses)
		// The host's udevd and systemd listen to these (CVE-2009-1185). Every
		// user may receive from them.
		add("forge-uevent", "", func(*outside) (bool, string) {
			return forgeUevent(&unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 2})
		})
		add("forge-uevent-to-one", "", func(*outside) (bool, string) {
			return forgeUevent(&unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 1})
		})
	}
	for _, k := range []struct {
		name string
		kind int
	}{{"stream", unix.SOCK_STREAM}, {"datagram", unix.SOCK_DGRAM}, {"seqpacket", unix.SOCK_SEQPACKET}} {
		kind := k.kind
		add("abstract-"+k.name, "abstract", func(o *outside) (bool, string) {
			fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return false, err.Error()
			}
			defer unix.Close(fd)
			sa := &unix.SockaddrUnix{Name: "@" + o.abstract}
			if kind == unix.SOCK_DGRAM {
				if err := unix.Sendto(fd, []byte("x"), unix.MSG_NOSIGNAL, sa); err == nil {
					return true, "sent to @" + o.abstract
				}
			}
			return resultOf(unix.Connect(fd, sa), "connected to @"+o.abstract)
		})
	}
	return rows
}

// rawInside tries what a process with all capabilities in new namespaces may do.
func rawInside() int {
	var err error
	for _, s := range [][3]int{{unix.AF_PACKET, unix.SOCK_RAW, 0}, {unix.AF_INET, unix.SOCK_PACKET, 0}, {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW}} {
		var fd int
		if fd, err = unix.Socket(s[0], s[1], s[2]); err == nil {
			unix.Close(fd)
			fmt.Printf("family %d, kind %d made", s[0], s[1])
			return 0
		}
	}
	fmt.Print(err)
	return 1
}

// runSelf runs this program for a part of an attack that needs a process of its own.
func runSelf(cmd *exec.Cmd) (bool, string) {
	out, err := cmd.Output()
	detail := strings.TrimSpace(string(out))
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, detail
	case errors.As(err, &exit):
		return false, detail
	}
	return false, err.Error()
}

// forgeUevent sends what looks like an event of udev's, about a device that is not there.
func forgeUevent(to unix.Sockaddr) (bool, string) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return true, "no socket, which libudev needs: " + err.Error()
	}
	defer unix.Close(fd)
	// ECONNREFUSED: sending was allowed, and nothing received it.
	if err := unix.Sendto(fd, []byte("change@/devices/attack\x00ACTION=change\x00"), 0, to); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
		return false, err.Error()
	}
	return true, "sent"
}

// changeAddresses asks for an address on lo that is harmless, by RTM_NEWADDR.
func changeAddresses(*outside) (bool, string) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return false, err.Error()
	}
	defer unix.Close(fd)
	msg := struct {
		head unix.NlMsghdr
		addr unix.IfAddrmsg
		attr unix.RtAttr
		ip   [4]byte
	}{
		unix.NlMsghdr{Type: unix.RTM_NEWADDR, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE},
		unix.IfAddrmsg{Family: unix.AF_INET, Prefixlen: 32, Index: 1},
		unix.RtAttr{Len: 8, Type: unix.IFA_LOCAL},
		[4]byte{127, 255, 254, 253},
	}
	msg.head.Len = uint32(unsafe.Sizeof(msg))
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&msg)), unsafe.Sizeof(msg))
	if err := unix.Sendto(fd, raw, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err.Error()
	}
	var answer [256]byte
	n, _, err := unix.Recvfrom(fd, answer[:], 0)
	if err != nil || n < unix.SizeofNlMsghdr+4 {
		return false, fmt.Sprint("no answer: ", err)
	}
	if errno := *(*int32)(unsafe.Pointer(&answer[unix.SizeofNlMsghdr])); errno != 0 {
		return false, unix.Errno(-errno).Error()
	}
	return true, "127.255.254.253 added to lo"
}
