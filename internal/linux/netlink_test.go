package linux

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNetlink(t *testing.T) {
	addresses, err := Netlink(unix.NETLINK_ROUTE, unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil || len(addresses) == 0 {
		t.Errorf("a dump: %d messages, %v", len(addresses), err)
	}
	lo := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(lo[4:], 1)
	if link, err := Netlink(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, lo); err != nil || len(link) != 1 {
		t.Errorf("one object: %d messages, %v", len(link), err)
	}
	binary.NativeEndian.PutUint32(lo[4:], 1<<30)
	if _, err := Netlink(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, lo); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an object that is not there: %v", err)
	}
	if _, err := Netlink(unix.NETLINK_ROUTE, unix.RTM_GETLINK, 0, []byte{0}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a short request: %v", err)
	}
	if _, err := Netlink(99, unix.RTM_GETLINK, 0, nil); !errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Errorf("a subsystem that does not exist: %v", err)
	}
}

// message returns a netlink message with its header.
func message(kind, flags uint16, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	return append(append(b, make([]byte, 8)...), payload...)
}

func TestNetlinkAnswer(t *testing.T) {
	data := message(unix.RTM_NEWADDR, unix.NLM_F_MULTI, []byte{1, 2, 3, 4})
	done := message(unix.NLMSG_DONE, unix.NLM_F_MULTI, make([]byte, 4))
	failed := message(unix.NLMSG_ERROR, 0, binary.NativeEndian.AppendUint32(nil, ^uint32(unix.EPERM)+1))
	for _, row := range []struct {
		name                  string
		datagrams             [][]byte
		payloads              int
		complete, interrupted bool
		err                   error
	}{
		{"data, and its end", [][]byte{data, append(data[:len(data):len(data)], done...)}, 2, true, false, nil},
		{"no end yet", [][]byte{data}, 1, false, false, nil},
		{"a refusal", [][]byte{failed}, 0, true, false, unix.EPERM},
		{"a dump that is to be repeated", [][]byte{message(unix.RTM_NEWADDR, unix.NLM_F_DUMP_INTR, nil), done}, 1, true, true, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			var a netlinkAnswer
			var err error
			for _, b := range row.datagrams {
				err = errors.Join(err, a.add(b))
			}
			if !errors.Is(err, row.err) || (err == nil) != (row.err == nil) || len(a.payloads) != row.payloads || a.complete != row.complete || a.interrupted != row.interrupted {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
	var a netlinkAnswer
	if err := a.add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}); err == nil {
		t.Error("a message shorter than its header")
	}
}

func FuzzNetlinkAnswer(f *testing.F) {
	f.Add(message(unix.RTM_NEWADDR, unix.NLM_F_MULTI, []byte{1, 2, 3, 4, 5}))
	f.Add(message(unix.NLMSG_DONE, 0, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a netlinkAnswer
		if a.add(b) != nil {
			return
		}
		n := 0
		for _, p := range a.payloads {
			n += len(p)
		}
		if n > len(b) {
			t.Errorf("%d bytes in payloads of %d", n, len(b))
		}
	})
}
