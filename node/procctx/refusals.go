package procctx

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// A Refusal is a row of the seccomp filter: a system call, or calls with certain
// arguments, that a guest is refused. The errno is one that programs are known to cope
// with: EPERM, as from the kernel to a caller without the privilege, or ENOSYS, as from
// a kernel built without the call. docs/security.md has the same table.
type Refusal struct {
	Call  string
	Errno unix.Errno
	Why   string
	When  When

	nr uint32
	// args are arguments with which the call is refused; nil: any. Outside a guest the
	// kernel answers them with something else, and does nothing.
	args []uint64
	amd  bool // a call of amd64 alone
	// probe are the arguments for a test where args are nil and all ones would have an
	// effect outside a guest.
	probe []uint64
}

// When tells which guests a refusal is for.
type When string

// Conditions of refusals.
const (
	Always     When = ""
	NoNesting  When = "without nesting"
	NoRaw      When = "but in nat with `raw`"
	removed         = "removed from current kernels, which return ENOSYS too"
	machine         = "the machine's"
	noFilterOf      = "its operations pass no filter"
	pageCache       = "families whose bugs wrote to the shared page cache or gave away the kernel"
)

const anyArch = ^uint32(0) // no number of a call

// Refusals lists what the filter refuses, in the order in which it looks.
var Refusals = []Refusal{
	{Call: "calls of i386 and x32", Errno: unix.ENOSYS, Why: "other ABIs have other numbers, and i386's socketcall has its arguments in memory", nr: anyArch},

	// Keyrings are counted per user id of the host, and requesting a key runs a
	// program on the host. With ENOSYS, runc and crun do without a keyring,
	// pam_keyinit ignores it, Kerberos uses a file; with EPERM they fail.
	{Call: "add_key", nr: unix.SYS_ADD_KEY, Errno: unix.ENOSYS, Why: "keyrings know no namespace"},
	{Call: "keyctl", nr: unix.SYS_KEYCTL, Errno: unix.ENOSYS, Why: "keyrings know no namespace"},
	{Call: "request_key", nr: unix.SYS_REQUEST_KEY, Errno: unix.ENOSYS, Why: "runs /sbin/request-key on the host"},

	// io_uring's operations on sockets and files bypass seccomp. With ENOSYS, libuv,
	// liburing, nginx and databases use epoll.
	{Call: "io_uring_setup", nr: unix.SYS_IO_URING_SETUP, Errno: unix.ENOSYS, Why: noFilterOf},
	{Call: "io_uring_enter", nr: unix.SYS_IO_URING_ENTER, Errno: unix.ENOSYS, Why: noFilterOf},
	{Call: "io_uring_register", nr: unix.SYS_IO_URING_REGISTER, Errno: unix.ENOSYS, Why: noFilterOf},

	// Calls that unprivileged users of a hardened host do not have either. With EPERM,
	// systemd does without BPF firewalls, JVMs without perf counters, QEMU without
	// postcopy.
	{Call: "bpf", nr: unix.SYS_BPF, Errno: unix.EPERM, Why: "the verifier is the kernel's largest parser of hostile input"},
	{Call: "perf_event_open", nr: unix.SYS_PERF_EVENT_OPEN, Errno: unix.EPERM, Why: "counts and samples the whole machine"},
	{Call: "userfaultfd", nr: unix.SYS_USERFAULTFD, Errno: unix.EPERM, Why: "stops the kernel in the middle of a copy: the tool of most exploits of races"},
	{Call: "open_by_handle_at", nr: unix.SYS_OPEN_BY_HANDLE_AT, Errno: unix.EPERM, Why: "opens any inode of a filesystem (\"shocker\", 2014)"},

	// Calls that control the machine. With EPERM, their tools (kexec, modprobe, swapon,
	// accton, dmesg) print "Operation not permitted", which their callers expect.
	{Call: "kexec_load", nr: unix.SYS_KEXEC_LOAD, Errno: unix.EPERM, Why: "replaces the host's kernel"},
	{Call: "kexec_file_load", nr: unix.SYS_KEXEC_FILE_LOAD, Errno: unix.EPERM, Why: "replaces the host's kernel"},
	{Call: "init_module", nr: unix.SYS_INIT_MODULE, Errno: unix.EPERM, Why: "code of the host's kernel"},
	{Call: "finit_module", nr: unix.SYS_FINIT_MODULE, Errno: unix.EPERM, Why: "code of the host's kernel"},
	{Call: "delete_module", nr: unix.SYS_DELETE_MODULE, Errno: unix.EPERM, Why: "code of the host's kernel"},
	{Call: "swapon", nr: unix.SYS_SWAPON, Errno: unix.EPERM, Why: machine + " memory"},
	{Call: "swapoff", nr: unix.SYS_SWAPOFF, Errno: unix.EPERM, Why: machine + " memory"},
	{Call: "ioperm", nr: 173, amd: true, Errno: unix.EPERM, Why: machine + " I/O ports"},
	{Call: "iopl", nr: 172, amd: true, Errno: unix.EPERM, Why: machine + " I/O ports"},
	{Call: "acct", nr: unix.SYS_ACCT, Errno: unix.EPERM, Why: "writes down every process of a pid namespace, from the kernel"},
	{Call: "syslog", nr: unix.SYS_SYSLOG, Errno: unix.EPERM, Why: "the host's kernel log, where kernel.dmesg_restrict is 0"},
	{Call: "vhangup", nr: unix.SYS_VHANGUP, Errno: unix.EPERM, Why: "the terminal may be the administrator's; agetty and login ignore it"},

	// To systemd and the quota tools, ENOSYS means no quota, and EPERM a failure.
	{Call: "quotactl", nr: unix.SYS_QUOTACTL, Errno: unix.ENOSYS, Why: "quotas of the host's filesystems"},
	{Call: "quotactl_fd", nr: unix.SYS_QUOTACTL_FD, Errno: unix.ENOSYS, Why: "quotas of the host's filesystems"},

	// Kernels can be built without these, and answer ENOSYS then.
	{Call: "ustat", nr: 136, amd: true, Errno: unix.ENOSYS, Why: "counts free blocks of any filesystem of the host"},
	{Call: "sysfs", nr: 139, amd: true, Errno: unix.ENOSYS, Why: "the kernel's list of filesystems, of 1992"},
	{Call: "modify_ldt", nr: 154, amd: true, probe: []uint64{0, 0, 0}, Errno: unix.ENOSYS, Why: "segments, which only 16-bit and 32-bit programs use"},
	{Call: "nfsservctl", nr: unix.SYS_NFSSERVCTL, Errno: unix.ENOSYS, Why: removed},
	{Call: "lookup_dcookie", nr: unix.SYS_LOOKUP_DCOOKIE, Errno: unix.ENOSYS, Why: removed},
	{Call: "_sysctl", nr: 156, amd: true, Errno: unix.ENOSYS, Why: removed},
	{Call: "uselib", nr: 134, amd: true, Errno: unix.ENOSYS, Why: removed},

	// With CLONE_FS and CLONE_THREAD the kernel makes no such namespace either.
	{Call: "unshare of a user or network namespace", nr: unix.SYS_UNSHARE, args: []uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNET | 1}, When: NoNesting, Errno: unix.EPERM, Why: nesters},
	{Call: "clone with a user or network namespace", nr: unix.SYS_CLONE, args: []uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_FS}, When: NoNesting, Errno: unix.EPERM, Why: nesters},
	{Call: "clone3", nr: unix.SYS_CLONE3, args: []uint64{0, 0}, When: NoNesting, Errno: unix.ENOSYS, Why: "its flags are in memory, where no filter sees them; C libraries use clone instead"},

	{Call: "socket of a family but UNIX, IPv4, IPv6, netlink", nr: unix.SYS_SOCKET, args: []uint64{unix.AF_PACKET, unix.SOCK_DGRAM, 0}, When: NoRaw, Errno: unix.EAFNOSUPPORT, Why: pageCache},
	// To libaudit this means a kernel without audit, and PAM goes on.
	{Call: "socket of netlink but routing and device events (in nat also netfilter)", nr: unix.SYS_SOCKET, args: []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, Errno: unix.EPROTONOSUPPORT, Why: "parts of the host's kernel that have no namespace, and parsers"},
	{Call: "socket of type raw", nr: unix.SYS_SOCKET, args: []uint64{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP}, When: NoRaw, Errno: unix.EPERM, Why: "packets with any content"},
	// The kernel makes a packet socket of AF_INET with this type (__sock_create).
	{Call: "socket of type SOCK_PACKET", nr: unix.SYS_SOCKET, args: []uint64{unix.AF_INET, unix.SOCK_PACKET, 0}, When: NoRaw, Errno: unix.EPERM, Why: "packets with any content"},
	{Call: "socketpair of a family but UNIX", nr: unix.SYS_SOCKETPAIR, args: []uint64{unix.AF_INET, unix.SOCK_STREAM, 0}, Errno: unix.EAFNOSUPPORT, Why: pageCache},

	{Call: "ioctl TIOCSTI", nr: unix.SYS_IOCTL, args: []uint64{noFile, unix.TIOCSTI}, Errno: unix.EPERM, Why: "types into the administrator's terminal"},
	{Call: "ioctl TIOCLINUX", nr: unix.SYS_IOCTL, args: []uint64{noFile, unix.TIOCLINUX}, Errno: unix.EPERM, Why: "types into the administrator's terminal"},
	{Call: "ioctl TIOCSETD", nr: unix.SYS_IOCTL, args: []uint64{noFile, unix.TIOCSETD}, Errno: unix.EPERM, Why: "line disciplines: drivers of modems and radios, with their bugs (CVE-2017-2636, CVE-2023-6546)"},
}

const (
	nesters = "inside, its maker has all capabilities again, and packet filters to try them on"
	noFile  = ^uint64(0)
)

// applies reports whether the filter of a guest has the row.
func (r Refusal) applies(privateNet, nesting, raw bool) bool {
	switch {
	case r.amd && runtime.GOARCH != "amd64", r.When == NoNesting && nesting, r.When == NoRaw && raw && privateNet:
		return false
	}
	return true
}

// whole reports whether the call is refused in every guest, whatever its arguments.
func (r Refusal) whole() bool {
	return r.applies(true, true, true) && r.nr != anyArch && r.args == nil
}
