package context

import (
	"fmt"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The filter every process of a guest is under. It looks at numbers only, so
// nothing a guest writes while it is checked can change what it saw. It allows
// what it does not name: a guest is a whole userland, and its user namespace
// refuses most already. What it closes are the parts of the kernel that look
// at no namespace, and those whose bugs wrote to the shared page cache in 2026
// (AF_ALG, AF_RXRPC, AF_KEY, NETLINK_XFRM: CVE-2026-31431, CVE-2026-43284,
// CVE-2026-46300).

// Results of a filter (seccomp(2)).
const (
	seccompAllow = unix.SECCOMP_RET_ALLOW
	seccompErrno = unix.SECCOMP_RET_ERRNO
)

// refused is what answers EPERM whatever its arguments.
var refused = [...]uint32{
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, // keyrings are per uid of the host
	unix.SYS_OPEN_BY_HANDLE_AT, // "shocker", 2014
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_NFSSERVCTL,
	unix.SYS_SYSLOG, // the host's kernel log, where kernel.dmesg_restrict is 0
	unix.SYS_LOOKUP_DCOOKIE, unix.SYS_VHANGUP,
}

// absent is what answers ENOSYS, as a kernel without it would, so that
// programs take another way. Sockets that io_uring makes pass no filter.
var absent = [...]uint32{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// Offsets in struct seccomp_data (seccomp(2)), little endian.
const (
	offNr   = 0
	offArch = 4
)

func offArg(i int) uint32 { return 16 + 8*uint32(i) } // its lower half: all the kernel looks at here

// netlink protocols: of a guest in the host's network only routing, read-only
// in effect; of a guest with a network of its own its packet filter too.
func netlinkProtocols(private bool) []uint32 {
	if private {
		return []uint32{unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER}
	}
	return []uint32{unix.NETLINK_ROUTE}
}

// filterRules is the filter as instructions.
func filterRules(privateNet bool) []bpf.Instruction {
	errno := func(e uint32) bpf.Instruction { return bpf.RetConstant{Val: seccompErrno | e} }
	allow := bpf.RetConstant{Val: seccompAllow}
	var p []bpf.Instruction
	add := func(in ...bpf.Instruction) { p = append(p, in...) }

	// Another machine's ABI has other numbers; i386's socketcall hides its arguments.
	add(bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1}, errno(uint32(unix.ENOSYS)),
		bpf.LoadAbsolute{Off: offNr, Size: 4},
		// x32 has x86-64's audit architecture and this bit (0x40000000).
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: 1 << 30, SkipFalse: 1}, errno(uint32(unix.ENOSYS)))
	for _, nr := range refused {
		add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, errno(uint32(unix.EPERM)))
	}
	for _, nr := range absent {
		add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, errno(uint32(unix.ENOSYS)))
	}

	// when adds instructions that run for one system call and end in a verdict.
	when := func(nr uint32, then []bpf.Instruction) {
		add(bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: uint8(len(then))})
		add(then...)
	}

	// socket, socketpair: families, then kinds and protocols.
	sock := []bpf.Instruction{bpf.LoadAbsolute{Off: offArg(0), Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipFalse: 1}, allow}
	nl := []bpf.Instruction{bpf.LoadAbsolute{Off: offArg(2), Size: 4}}
	for _, proto := range netlinkProtocols(privateNet) {
		nl = append(nl, bpf.JumpIf{Cond: bpf.JumpEqual, Val: proto, SkipFalse: 1}, allow)
	}
	nl = append(nl, errno(uint32(unix.EPROTONOSUPPORT)))
	sock = append(sock, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_NETLINK, SkipFalse: uint8(len(nl))})
	sock = append(sock, nl...)
	sock = append(sock,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET6, SkipTrue: 1},
		errno(uint32(unix.EAFNOSUPPORT)),
		// The kind without SOCK_NONBLOCK and SOCK_CLOEXEC.
		bpf.LoadAbsolute{Off: offArg(1), Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOCK_RAW, SkipFalse: 1}, errno(uint32(unix.EPERM)),
		allow)
	when(unix.SYS_SOCKET, sock)
	when(unix.SYS_SOCKETPAIR, []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArg(0), Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNIX, SkipFalse: 1}, allow,
		errno(uint32(unix.EAFNOSUPPORT))})

	// Characters pushed into the administrator's terminal: the kernel looks at
	// 32 bits of the request, so the filter does too (CVE-2016-10124, CVE-2019-10063).
	when(unix.SYS_IOCTL, []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArg(1), Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.TIOCSTI, SkipFalse: 1}, errno(uint32(unix.EPERM)),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.TIOCLINUX, SkipFalse: 1}, errno(uint32(unix.EPERM)),
		allow})
	add(allow)
	return p
}

// filter is the assembled program, as seccomp(2) takes it.
func filter(privateNet bool) ([]unix.SockFilter, error) {
	raw, err := bpf.Assemble(filterRules(privateNet))
	if err != nil {
		return nil, fmt.Errorf("assemble seccomp filter: %w", err)
	}
	prog := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		prog[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return prog, nil
}

// addFilter puts the filter into the script. It needs CAP_SYS_ADMIN in the
// guest's user namespace; no_new_privs would break setuid programs.
func (s *script) addFilter(privateNet bool) error {
	prog, err := filter(privateNet)
	if err != nil {
		return err
	}
	fprog := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	s.keep = append(s.keep, prog, fprog)
	s.call("install seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, unsafe.Pointer(fprog))
	return nil
}
