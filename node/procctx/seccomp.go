package procctx

import (
	"fmt"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The seccomp filter of every process of a guest. It compares numbers only, never
// memory, so a guest cannot change an argument between check and use. It allows
// whatever it does not name: a guest is a whole userland, and its user namespace
// already refuses most of what is dangerous. The filter closes the parts of the
// kernel that ignore namespaces, and those whose bugs wrote to the shared page cache
// in 2026 (AF_ALG, AF_RXRPC, AF_KEY, NETLINK_XFRM: CVE-2026-31431, CVE-2026-43284,
// CVE-2026-46300).

// Results of a filter (seccomp(2)).
const (
	seccompAllow = unix.SECCOMP_RET_ALLOW
	seccompErrno = unix.SECCOMP_RET_ERRNO
)

// nestedNamespaces are the namespaces that a guest without nesting cannot create. A user
// namespace gives its creator every capability again, and a new network namespace
// opens packet filters, traffic control and routing to them: most kernel
// vulnerabilities of recent years that a plain user could exploit needed just these
// two. The other namespaces give nothing that the guest's root does not have, and
// systemd's services use them.
const nestedNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET

// Offsets in struct seccomp_data (seccomp(2)), little endian.
const (
	offNr   = 0
	offArch = 4
)

// offArg returns the offset of the lower half of an argument: the kernel ignores the
// upper half of those that the filter checks.
func offArg(i int) uint32 { return 16 + 8*uint32(i) }

// netlinkProtocols returns the protocols that a guest may use: routing, which is
// read-only for a guest in the host's network, and the kernel's device events,
// without which libudev fails and systemd-logind with it. In the host's network a
// guest receives the events of the host's devices, as any user of the host does; only
// the owner of the network namespace can send events (uevent_net_rcv_skb,
// netlink_sendmsg). A guest with a network of its own may use its packet filter too.
func netlinkProtocols(private bool) []uint32 {
	list := []uint32{unix.NETLINK_ROUTE, unix.NETLINK_KOBJECT_UEVENT}
	if private {
		list = append(list, unix.NETLINK_NETFILTER)
	}
	return list
}

// filterRules returns the filter's instructions.
func filterRules(privateNet, nesting, raw bool) []bpf.Instruction {
	errno := func(e unix.Errno) bpf.Instruction { return bpf.RetConstant{Val: seccompErrno | uint32(e)} }
	allow := bpf.RetConstant{Val: seccompAllow}
	var p []bpf.Instruction
	add := func(in ...bpf.Instruction) { p = append(p, in...) }

	// Other ABIs have other numbers, and i386's socketcall has its arguments in memory.
	add(bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1}, errno(unix.ENOSYS),
		bpf.LoadAbsolute{Off: offNr, Size: 4},
		// x32 has x86-64's audit architecture and this bit (0x40000000).
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: 1 << 30, SkipFalse: 1}, errno(unix.ENOSYS))
	for _, r := range Refusals {
		if r.whole() {
			add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.nr, SkipFalse: 1}, errno(r.Errno))
		}
	}

	// when adds instructions that run for one system call and end with a verdict.
	when := func(nr uint32, then []bpf.Instruction) {
		add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: uint8(len(then))})
		add(then...)
	}

	if !nesting {
		for _, nr := range []uint32{unix.SYS_UNSHARE, unix.SYS_CLONE} {
			when(nr, []bpf.Instruction{
				bpf.LoadAbsolute{Off: offArg(0), Size: 4},
				bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: nestedNamespaces, SkipFalse: 1}, errno(unix.EPERM),
				allow})
		}
		// Its flags are in memory, where the filter cannot see them. With ENOSYS, C
		// libraries use clone instead.
		when(unix.SYS_CLONE3, []bpf.Instruction{errno(unix.ENOSYS)})
	}

	// socket, socketpair: families, then kinds and protocols.
	sock := []bpf.Instruction{bpf.LoadAbsolute{Off: offArg(0), Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipFalse: 1}, allow}
	nl := []bpf.Instruction{bpf.LoadAbsolute{Off: offArg(2), Size: 4}}
	for _, proto := range netlinkProtocols(privateNet) {
		nl = append(nl, bpf.JumpIf{Cond: bpf.JumpEqual, Val: proto, SkipFalse: 1}, allow)
	}
	// To libaudit this means a kernel without audit, and PAM goes on.
	nl = append(nl, errno(unix.EPROTONOSUPPORT))
	sock = append(sock, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_NETLINK, SkipFalse: uint8(len(nl))})
	sock = append(sock, nl...)
	if raw && privateNet {
		sock = append(sock, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_PACKET, SkipFalse: 1}, allow)
	}
	sock = append(sock,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET6, SkipTrue: 1},
		errno(unix.EAFNOSUPPORT))
	if !raw || !privateNet {
		sock = append(sock,
			// The socket type without SOCK_NONBLOCK and SOCK_CLOEXEC.
			bpf.LoadAbsolute{Off: offArg(1), Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_RAW, SkipFalse: 1}, errno(unix.EPERM),
			// The kernel makes a packet socket of AF_INET with this type (__sock_create).
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_PACKET, SkipFalse: 1}, errno(unix.EPERM))
	}
	sock = append(sock, allow)
	when(unix.SYS_SOCKET, sock)
	when(unix.SYS_SOCKETPAIR, []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArg(0), Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipFalse: 1}, allow,
		errno(unix.EAFNOSUPPORT)})

	// The kernel looks at 32 bits of the request, so the filter does too
	// (CVE-2016-10124, CVE-2019-10063).
	requests := []bpf.Instruction{bpf.LoadAbsolute{Off: offArg(1), Size: 4}}
	for _, r := range Refusals {
		if r.nr == unix.SYS_IOCTL {
			requests = append(requests, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(r.args[1]), SkipFalse: 1}, errno(r.Errno))
		}
	}
	when(unix.SYS_IOCTL, append(requests, allow))
	add(allow)
	return p
}

// filter returns the assembled program, as seccomp(2) takes it.
func filter(privateNet, nesting, raw bool) ([]unix.SockFilter, error) {
	code, err := bpf.Assemble(filterRules(privateNet, nesting, raw))
	if err != nil {
		return nil, fmt.Errorf("assemble seccomp filter: %w", err)
	}
	prog := make([]unix.SockFilter, len(code))
	for i, in := range code {
		prog[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return prog, nil
}

// addFilter adds the installation of the filter to the script. It takes CAP_SYS_ADMIN
// in the guest's user namespace; the alternative, no_new_privs, would break setuid
// programs.
func (s *script) addFilter(privateNet, nesting, raw bool) error {
	prog, err := filter(privateNet, nesting, raw)
	if err != nil {
		return err
	}
	fprog := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	s.refs = append(s.refs, prog, fprog)
	s.call("install seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, unsafe.Pointer(fprog))
	return nil
}

// FilterThread installs the filter on the calling thread, which must be locked and never
// unlocked, for a program of the host's root that runs what a guest will be made of: the
// scripts of packages. Such a program may make namespaces.
func FilterThread() error {
	prog, err := filter(false, true, false)
	if err != nil {
		return err
	}
	fprog := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(fprog))); errno != 0 {
		return fmt.Errorf("install seccomp filter: %w", errno)
	}
	return nil
}
