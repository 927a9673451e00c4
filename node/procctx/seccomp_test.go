package procctx

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestFilterAnswersWhatProgramsGoOnAt runs the filter on system calls. The
// errno counts: podman fails at a keyring that is EPERM and goes on without one
// at ENOSYS.
func TestFilterAnswersWhatProgramsGoOnAt(t *testing.T) {
	const allowed = unix.Errno(0)
	type args = []uint64
	for _, row := range []struct {
		what               string
		private, nest, raw bool
		nr                 uint32
		args               args
		want               unix.Errno
	}{
		{"containers without a session keyring", false, false, false, unix.SYS_KEYCTL, nil, unix.ENOSYS},
		{"pam_keyinit", false, false, false, unix.SYS_REQUEST_KEY, nil, unix.ENOSYS},
		{"databases without io_uring", false, false, false, unix.SYS_IO_URING_SETUP, nil, unix.ENOSYS},
		{"systemd without BPF", false, false, false, unix.SYS_BPF, nil, unix.EPERM},
		{"modprobe", false, false, false, unix.SYS_FINIT_MODULE, nil, unix.EPERM},
		{"repquota", false, false, false, unix.SYS_QUOTACTL, nil, unix.ENOSYS},
		{"dmesg", false, false, false, unix.SYS_SYSLOG, nil, unix.EPERM},
		{"libudev", false, false, false, unix.SYS_SOCKET, args{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT}, allowed},
		{"libudev in nat", true, false, false, unix.SYS_SOCKET, args{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT}, allowed},
		{"libaudit", false, false, false, unix.SYS_SOCKET, args{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, unix.EPROTONOSUPPORT},
		{"ip address", false, false, false, unix.SYS_SOCKET, args{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}, allowed},
		{"nft in the host's network", false, true, false, unix.SYS_SOCKET, args{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, unix.EPROTONOSUPPORT},
		{"nft in nat", true, false, false, unix.SYS_SOCKET, args{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, allowed},
		{"cryptsetup", false, false, false, unix.SYS_SOCKET, args{unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, unix.EAFNOSUPPORT},
		{"raw socket", false, false, false, unix.SYS_SOCKET, args{unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 1}, unix.EPERM},
		{"raw socket in nat", true, true, false, unix.SYS_SOCKET, args{unix.AF_INET6, unix.SOCK_RAW, 58}, unix.EPERM},
		{"raw socket in nat, allowed", true, false, true, unix.SYS_SOCKET, args{unix.AF_INET6, unix.SOCK_RAW, 58}, allowed},
		{"raw socket in the host's network, whatever is said", false, true, true, unix.SYS_SOCKET, args{unix.AF_INET, unix.SOCK_RAW, 1}, unix.EPERM},
		{"packet socket", true, true, false, unix.SYS_SOCKET, args{unix.AF_PACKET, unix.SOCK_DGRAM, 0x300}, unix.EAFNOSUPPORT},
		{"packet socket, allowed", true, false, true, unix.SYS_SOCKET, args{unix.AF_PACKET, unix.SOCK_RAW, 0x300}, allowed},
		{"packet socket in the host's network, whatever is said", false, true, true, unix.SYS_SOCKET, args{unix.AF_PACKET, unix.SOCK_RAW, 0x300}, unix.EAFNOSUPPORT},
		{"packet socket under its name of 1996", true, true, false, unix.SYS_SOCKET, args{unix.AF_INET, unix.SOCK_PACKET | unix.SOCK_CLOEXEC, 0x300}, unix.EPERM},
		{"SCTP, which has the kernel to refuse it", false, false, false, unix.SYS_SOCKET, args{unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP}, allowed},
		{"TCP", false, false, false, unix.SYS_SOCKET, args{unix.AF_INET6, unix.SOCK_STREAM | unix.SOCK_NONBLOCK, 0}, allowed},
		{"typing, with high bits", false, false, false, unix.SYS_IOCTL, args{0, unix.TIOCSTI | 1<<32}, unix.EPERM},
		{"x32", false, false, false, unix.SYS_GETPID | 1<<30, nil, unix.ENOSYS},

		{"threads", false, false, false, unix.SYS_CLONE, args{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND}, allowed},
		{"threads, newer libc: clone3 gives way to clone", false, false, false, unix.SYS_CLONE3, nil, unix.ENOSYS},
		{"unshare -U", false, false, false, unix.SYS_UNSHARE, args{unix.CLONE_NEWUSER | unix.CLONE_NEWNS}, unix.EPERM},
		{"clone with a user namespace", false, false, false, unix.SYS_CLONE, args{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, unix.EPERM},
		{"unshare -n: systemd's PrivateNetwork= is ignored at EPERM", false, false, false, unix.SYS_UNSHARE, args{unix.CLONE_NEWNET}, unix.EPERM},
		{"ProtectSystem= and its like", false, false, false, unix.SYS_UNSHARE, args{unix.CLONE_NEWNS}, allowed},
		{"nesting: user namespaces", false, true, false, unix.SYS_UNSHARE, args{unix.CLONE_NEWUSER}, allowed},
		{"nesting: networks", false, true, false, unix.SYS_CLONE, args{unix.CLONE_NEWNET}, allowed},
		{"nesting: clone3", false, true, false, unix.SYS_CLONE3, nil, allowed},
	} {
		got := answer(t, filterRules(row.private, row.nest, row.raw), row.nr, row.args)
		want := seccompErrno | int(row.want)
		if row.want == allowed {
			want = seccompAllow
		}
		if got != want {
			t.Errorf("%s: %#x, want %#x", row.what, got, want)
		}
	}
}

// answer runs a filter on a system call.
func answer(t *testing.T, rules []bpf.Instruction, nr uint32, args []uint64) int {
	t.Helper()
	vm, err := bpf.NewVM(rules)
	if err != nil {
		t.Fatal(err)
	}
	// struct seccomp_data. The machine that runs it here is big-endian, and the
	// lower half of an argument comes first in the kernel's.
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNr:], nr)
	binary.BigEndian.PutUint32(data[offArch:], auditArch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offArg(i):], uint32(a))
		binary.BigEndian.PutUint32(data[offArg(i)+4:], uint32(a>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
