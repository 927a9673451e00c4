package linux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Netlink sends a request to a subsystem of the kernel (netlink(7)) and returns the
// payloads of the answer, from behind their headers. A dump is repeated until nothing
// changes while the kernel makes it (NLM_F_DUMP_INTR: it may lack entries that existed all
// the time). The errors of the kernel are numbers as of system calls.
//
// The kernel answers before the request returns, so nobody waits for the socket: unlike
// those of the libraries it stays out of Go's poller.
func Netlink(protocol int, kind, flags uint16, payload []byte) ([][]byte, error) {
	for {
		answer, err := netlink(protocol, kind, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, payload)
		if !errors.Is(err, errInterrupted) {
			return answer, err
		}
	}
}

var errInterrupted = errors.New("interrupted dump")

func netlink(protocol int, kind, flags uint16, payload []byte) ([][]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer unix.Close(fd)
	request := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(payload))
	binary.NativeEndian.PutUint32(request, uint32(unix.SizeofNlMsghdr+len(payload)))
	binary.NativeEndian.PutUint16(request[4:], kind)
	binary.NativeEndian.PutUint16(request[6:], flags)
	if err := unix.Sendto(fd, append(request, payload...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send netlink request: %w", err)
	}
	room := 4 << 10 // for an object
	if flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP {
		room = 32 << 10 // the most that the kernel puts into one datagram (netlink_recvmsg)
	}
	var answer netlinkAnswer
	for b := make([]byte, room); !answer.complete; {
		n, from, err := unix.Recvfrom(fd, b, 0)
		switch addr, _ := from.(*unix.SockaddrNetlink); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("receive netlink answer: %w", err)
		case addr == nil || addr.Pid != 0:
			continue // not the kernel
		}
		if err := answer.add(b[:n]); err != nil {
			return nil, err
		}
	}
	if answer.interrupted {
		return nil, errInterrupted
	}
	return answer.payloads, nil
}

// netlinkAnswer is what has come of an answer.
type netlinkAnswer struct {
	payloads              [][]byte
	complete, interrupted bool
}

// add takes the messages of a datagram.
func (a *netlinkAnswer) add(b []byte) error {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return errors.New("netlink answer: message of a wrong size")
		}
		payload := b[unix.SizeofNlMsghdr:size]
		if binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_DUMP_INTR != 0 {
			a.interrupted = true
		}
		switch kind := binary.NativeEndian.Uint16(b[4:]); kind {
		case unix.NLMSG_ERROR, unix.NLMSG_DONE: // both begin with an error or 0
			a.complete = true
			if len(payload) >= 4 {
				if errno := int32(binary.NativeEndian.Uint32(payload)); errno < 0 {
					return unix.Errno(-errno)
				}
			}
		case unix.NLMSG_NOOP:
		default:
			a.payloads = append(a.payloads, bytes.Clone(payload))
		}
		b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return nil
}

// NetlinkAttribute appends an attribute (struct nlattr) to a payload.
func NetlinkAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}
