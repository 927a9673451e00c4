package netctx

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// join returns an attack in which the guest joins a group. The attack succeeds if the
// host's devices then list the group.
func join(level, opt int, value []byte, file, group string) func(*testing.T, *machine, *machine) string {
	return func(t *testing.T, g, h *machine) string {
		family := unix.AF_INET
		if level == unix.IPPROTO_IPV6 {
			family = unix.AF_INET6
		}
		fd := g.mustSocket(family, unix.SOCK_DGRAM, 0)
		defer g.close(fd)
		if err := g.setsockopt(fd, level, opt, value); err != nil {
			t.Errorf("join: %v", err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), group) {
			return "a member"
		}
		return ""
	}
}

// TestGuestsJoinNoGroups: the kernel limits memberships neither per host nor per user.
func TestGuestsJoinNoGroups(t *testing.T) {
	// (/proc/net is that of the first thread, which newNetns of another test may have moved elsewhere.)
	const mcastJoinGroup = 42
	four, six := []byte{239, 7, 7, 7}, []byte{0xff, 0x15, 14: 7, 15: 0x77}
	at := hostAddr.Addr().As4()
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	index := word(uint32(eth0.Index))
	req4 := slices.Concat(index, make([]byte, 4), []byte{unix.AF_INET, 0, 0, 0}, four, make([]byte, 120))
	req6 := slices.Concat(index, make([]byte, 4), []byte{unix.AF_INET6, 0, 0, 0, 0, 0, 0, 0}, six, make([]byte, 104))
	const named4, named6 = "070707EF", "ff150000000000000000000000000777"
	rows := []attack{
		{"join a group", false, join(unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, slices.Concat(four, at[:]), "/proc/thread-self/net/igmp", named4)},
		{"join a group for one source", false, join(unix.IPPROTO_IP, unix.IP_ADD_SOURCE_MEMBERSHIP, slices.Concat(four, at[:], []byte{10, 77, 0, 2}), "/proc/thread-self/net/igmp", named4)},
		{"join a group by device", false, join(unix.IPPROTO_IP, mcastJoinGroup, req4, "/proc/thread-self/net/igmp", named4)},
		{"join a group of IPv6", false, join(unix.IPPROTO_IPV6, unix.IPV6_ADD_MEMBERSHIP, slices.Concat(six, index), "/proc/thread-self/net/igmp6", named6)},
		{"join a group of IPv6 by device", false, join(unix.IPPROTO_IPV6, mcastJoinGroup, req6, "/proc/thread-self/net/igmp6", named6)},
	}
	g, _ := newGuest(t, www("80/tcp"))
	t.Run("of a guest", func(t *testing.T) { refused(t, g, rows) })
	t.Run("of a guest without programs, which shows that there is a way", func(t *testing.T) { working(t, rows) })
	g.t = t
	fd := g.udp4()
	g.must("leave", g.setsockopt(fd, unix.IPPROTO_IP, unix.IP_DROP_MEMBERSHIP, slices.Concat(four, at[:])))
}
