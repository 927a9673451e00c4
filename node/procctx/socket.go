package procctx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/cgroup"
)

// Socket returns a TCP socket of a running guest for a connection of our own to it: the
// socket is made in the guest's cgroup and in its network, so where it may connect to, and
// what 127.0.0.1 means there, is as for the guest's own programs: the hooks of connect(2)
// go by the cgroup in which a socket was made. family is AF_INET or AF_INET6.
//
// The process that makes it runs nothing but system calls. It is outside the guest's other
// namespaces, and ends before Socket returns.
func Socket(ctx context.Context, initPID int, guest cgroup.Dir, privateNet bool, family int) (*os.File, error) {
	d, err := findDoor(initPID, guest)
	if err != nil {
		return nil, err
	}
	defer d.close()
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	s := newScript()
	s.call("become undumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if privateNet {
		s.fds = append(s.fds, d.pidfd)
		s.call("join the guest's network", unix.SYS_SETNS, d.pidfd, unix.CLONE_NEWNET)
	}
	socket := s.open("make a socket", unix.SYS_SOCKET, family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	s.send(theirs, socket)
	s.call("tell vsnode", unix.SYS_WRITE, status, unsafe.Pointer(&s.report), reportSize)
	pid, err := d.enter(ctx, s)
	if err != nil {
		return nil, err
	}
	if _, err := wait(pid); err != nil {
		return nil, err
	}
	return receiveFile(ours, "socket")
}

// send adds a system call that sends the descriptor in a cell over a socket, in a control
// message that is laid over the cells: a header of 16 bytes, and one int.
func (s *script) send(sock *os.File, descriptor cell) {
	first := s.cell()
	for range 6 { // the header, the descriptor, and up to one to align to 8 bytes
		s.cell()
	}
	if first%2 != 0 {
		first++
	}
	header := (*unix.Cmsghdr)(unsafe.Pointer(&s.cells[first]))
	header.Level, header.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	header.SetLen(unix.CmsgLen(4))
	s.call("keep the socket", unix.SYS_FCNTL, descriptor, unix.F_DUPFD_CLOEXEC, 3).result = first + 4
	buf := make([]byte, 1)
	iov := &unix.Iovec{Base: &buf[0]}
	iov.SetLen(len(buf))
	msg := &unix.Msghdr{Iov: iov, Control: (*byte)(unsafe.Pointer(&s.cells[first]))}
	msg.SetIovlen(1)
	msg.SetControllen(unix.CmsgLen(4))
	s.refs = append(s.refs, buf, iov, msg)
	s.call("send the socket", unix.SYS_SENDMSG, s.fd(sock), unsafe.Pointer(msg), 0)
}

// receiveFile takes a descriptor that was sent over a socket.
func receiveFile(sock *os.File, name string) (*os.File, error) {
	buf, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(sock.Fd()), buf, control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receive the %s: %w", name, err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(fmt.Errorf("receive the %s: no descriptor came", name), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(fmt.Errorf("receive the %s: no descriptor came", name), err)
	}
	return os.NewFile(uintptr(fds[0]), name), nil
}
