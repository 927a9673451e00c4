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

// A refusal is a system call that is refused whatever its arguments. The errno is
// one that programs are known to cope with: EPERM, as from the kernel to a caller
// without the privilege, or ENOSYS, as from a kernel built without the call.
type refusal struct {
	name  string
	nr    uint32
	errno unix.Errno
	why   string
}

var refusals = [...]refusal{
	// Keyrings are counted per user id of the host, and requesting a key runs a
	// program on the host. With ENOSYS, runc and crun do without a keyring,
	// pam_keyinit ignores it, Kerberos uses a file; with EPERM they fail.
	{"add_key", unix.SYS_ADD_KEY, unix.ENOSYS, "keyrings know no namespace"},
	{"request_key", unix.SYS_REQUEST_KEY, unix.ENOSYS, "runs /sbin/request-key on the host"},
	{"keyctl", unix.SYS_KEYCTL, unix.ENOSYS, "keyrings know no namespace"},

	// io_uring's operations on sockets and files bypass seccomp. With ENOSYS, libuv,
	// liburing, nginx and databases use epoll.
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, unix.ENOSYS, "its operations pass no filter"},
	{"io_uring_enter", unix.SYS_IO_URING_ENTER, unix.ENOSYS, "its operations pass no filter"},
	{"io_uring_register", unix.SYS_IO_URING_REGISTER, unix.ENOSYS, "its operations pass no filter"},

	// Calls that unprivileged users of a hardened host do not have either. With EPERM,
	// systemd does without BPF firewalls, JVMs without perf counters, QEMU without
	// postcopy.
	{"bpf", unix.SYS_BPF, unix.EPERM, "the verifier is the kernel's largest parser of hostile input"},
	{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, unix.EPERM, "counts and samples the whole machine"},
	{"userfaultfd", unix.SYS_USERFAULTFD, unix.EPERM, "stops the kernel in the middle of a copy: the tool of most exploits of races"},
	{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, unix.EPERM, "opens any inode of a filesystem (\"shocker\", 2014)"},

	// Calls that control the machine. With EPERM, their tools (kexec, modprobe, swapon,
	// accton, dmesg) print "Operation not permitted", which their callers expect.
	{"kexec_load", unix.SYS_KEXEC_LOAD, unix.EPERM, "replaces the host's kernel"},
	{"kexec_file_load", unix.SYS_KEXEC_FILE_LOAD, unix.EPERM, "replaces the host's kernel"},
	{"init_module", unix.SYS_INIT_MODULE, unix.EPERM, "loads code into the host's kernel"},
	{"finit_module", unix.SYS_FINIT_MODULE, unix.EPERM, "loads code into the host's kernel"},
	{"delete_module", unix.SYS_DELETE_MODULE, unix.EPERM, "unloads code of the host's kernel"},
	{"swapon", unix.SYS_SWAPON, unix.EPERM, "the machine's memory"},
	{"swapoff", unix.SYS_SWAPOFF, unix.EPERM, "the machine's memory"},
	{"acct", unix.SYS_ACCT, unix.EPERM, "writes down every process of a pid namespace, from the kernel"},
	{"syslog", unix.SYS_SYSLOG, unix.EPERM, "the host's kernel log, where kernel.dmesg_restrict is 0"},
	{"vhangup", unix.SYS_VHANGUP, unix.EPERM, "the terminal may be the administrator's; agetty and login ignore it"},

	// To systemd and the quota tools, ENOSYS means no quota, and EPERM a failure.
	{"quotactl", unix.SYS_QUOTACTL, unix.ENOSYS, "quotas of the host's filesystems"},
	{"quotactl_fd", unix.SYS_QUOTACTL_FD, unix.ENOSYS, "quotas of the host's filesystems"},

	// Removed from current kernels, which return ENOSYS too.
	{"nfsservctl", unix.SYS_NFSSERVCTL, unix.ENOSYS, "the host's NFS server (until 3.1)"},
	{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE, unix.ENOSYS, "paths of the whole machine (until 6.7)"},
}

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
	for _, r := range refusals {
		add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.nr, SkipFalse: 1}, errno(r.errno))
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

	// These push characters into the administrator's terminal. The kernel looks at
	// 32 bits of the request, so the filter does too (CVE-2016-10124, CVE-2019-10063).
	when(unix.SYS_IOCTL, []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArg(1), Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.TIOCSTI, SkipFalse: 1}, errno(unix.EPERM),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.TIOCLINUX, SkipFalse: 1}, errno(unix.EPERM),
		allow})
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
