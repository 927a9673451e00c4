package netctx

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/order"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node/probe"
)

// Listener is a process with a socket that receives from anybody.
type Listener struct {
	Proto   port.Proto
	Addr    netip.AddrPort // as bound: 0.0.0.0:22
	Context int            // XID of the guest whose socket it is; 0: the host's
	PID     int            // 0: no process has it (a socket of the kernel, or the process ended)
	Process string
}

func (l Listener) String() string {
	who := "a socket without a process"
	if l.PID != 0 {
		who = fmt.Sprintf("%s (pid %d)", l.Process, l.PID)
	}
	return fmt.Sprintf("%s on %s/%s", who, l.Addr, l.Proto)
}

// Listeners returns the sockets outside the guest that have one of its ports, on one
// of its addresses or on all. The guest could not bind such a port, and its clients
// would reach the host. The most common case is the host's sshd.
//
// If the guest owns every port, UDP clients are left out.
func Listeners(ctx context.Context, s Spec) ([]Listener, error) {
	if !s.AllPorts {
		var protos []port.Proto
		for _, r := range s.Ports {
			if !slices.Contains(protos, r.Proto) {
				protos = append(protos, r.Proto)
			}
		}
		return findListeners(ctx, protos, func(k diagSocket) bool { return k.takes(s) })
	}
	clients, err := clientPorts()
	if err != nil {
		return nil, err
	}
	return findListeners(ctx, allProtos, func(k diagSocket) bool { return k.takes(s) && !k.isOn(clients) })
}

var allProtos = []port.Proto{port.TCP, port.UDP}

// Wildcards returns the services that listen on all addresses of the host, including
// those of guests.
func Wildcards(ctx context.Context) ([]Listener, error) {
	clients, err := clientPorts()
	if err != nil {
		return nil, err
	}
	return findListeners(ctx, allProtos, func(k diagSocket) bool {
		return k.addr.Addr().Unmap().IsUnspecified() && k.addr.Port() != 0 && !k.isOn(clients)
	})
}

// clientPorts returns the ports of UDP sockets that belong to no service: the
// ephemeral ones, and those of DHCP clients.
func clientPorts() ([]port.Range, error) {
	ephemeral, err := probe.EphemeralPorts()
	ephemeral.Proto = port.UDP
	return []port.Range{ephemeral, {Proto: port.UDP, First: 68, Last: 68}, {Proto: port.UDP, First: 546, Last: 546}}, err
}

// findListeners returns the sockets of this network namespace that receive from anybody
// and that want selects, with the processes that have them. The kernel walks through all
// its sockets for each of the protocols.
func findListeners(ctx context.Context, protos []port.Proto, want func(diagSocket) bool) ([]Listener, error) {
	var found []diagSocket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range protos {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			socks, err := boundSockets(family, proto)
			if err != nil {
				return nil, fmt.Errorf("list %s sockets: %w", proto, err)
			}
			found = append(found, slices.DeleteFunc(socks, func(k diagSocket) bool { return !want(k) })...)
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	owners, err := socketOwners(ctx, found)
	if err != nil {
		return nil, err
	}
	var list []Listener
	for _, k := range found {
		l := Listener{Proto: k.proto, Addr: k.addr, Context: int(k.uid >> 16)} // see procctx.BaseID
		if pid := owners[k.inode]; pid != 0 {
			l.PID, l.Process = pid, processName(pid)
		}
		list = append(list, l)
	}
	// Several sockets of one process, as of a server with SO_REUSEPORT, are one.
	order.Func(list, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Addr.Port(), b.Addr.Port()), cmp.Compare(a.Proto, b.Proto),
			a.Addr.Compare(b.Addr), cmp.Compare(a.PID, b.PID))
	})
	return slices.Compact(list), nil
}

// diagSocket is a socket that receives from anybody.
type diagSocket struct {
	proto  port.Proto
	addr   netip.AddrPort
	v6only bool
	uid    uint32
	inode  uint32
}

// isOn reports whether the socket's port is in one of the ranges.
func (k diagSocket) isOn(ports []port.Range) bool {
	return slices.ContainsFunc(ports, port.Range{Proto: k.proto, First: k.addr.Port(), Last: k.addr.Port()}.Overlaps)
}

// takes reports whether the socket has one of the guest's ports.
func (k diagSocket) takes(s Spec) bool {
	if k.uid>>16 == uint32(s.XID) || k.addr.Port() == 0 {
		return false // the guest itself, from an earlier start
	}
	if !s.AllPorts && !k.isOn(s.Ports) {
		return false
	}
	a := k.addr.Addr().Unmap()
	return slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool {
		if a.IsUnspecified() {
			return a.Is4() == p.Addr().Is4() || a.Is6() && !k.v6only
		}
		return a == p.Addr()
	})
}

// From linux/inet_diag.h and tcp_states.h.
const (
	diagRequestSize = 56 // struct inet_diag_req_v2
	diagMessageSize = 72 // struct inet_diag_msg
	diagV6Only      = 11 // INET_DIAG_SKV6ONLY
	tcpListen       = 10
	tcpClose        = 7 // for UDP: bound and not connected
)

// boundSockets lists the sockets of this network namespace that receive from anybody.
// /proc/net does not distinguish [::] for IPv6 only from [::] for both families.
func boundSockets(family uint8, proto port.Proto) ([]diagSocket, error) {
	ask := make([]byte, diagRequestSize)
	ask[0], ask[1] = family, unix.IPPROTO_TCP
	states := uint32(1 << tcpListen)
	if proto == port.UDP {
		ask[1], states = unix.IPPROTO_UDP, 1<<tcpClose
	}
	binary.NativeEndian.PutUint32(ask[4:], states)
	msgs, err := linux.Netlink(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, ask)
	if err != nil {
		return nil, err
	}
	var list []diagSocket
	for _, m := range msgs {
		k, err := parseSocket(m)
		if err != nil {
			return nil, err
		}
		k.proto = proto
		list = append(list, k)
	}
	return list, nil
}

// parseSocket reads an inet_diag_msg (sock_diag(7)).
func parseSocket(m []byte) (k diagSocket, err error) {
	if len(m) < diagMessageSize {
		return k, errors.New("short socket message")
	}
	addr := netip.AddrFrom4([4]byte(m[8:]))
	if m[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(m[8:]))
	}
	k.addr = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(m[4:]))
	k.uid = binary.NativeEndian.Uint32(m[64:])
	k.inode = binary.NativeEndian.Uint32(m[68:])
	for kind, value := range attributes(m[diagMessageSize:]) {
		if kind == diagV6Only {
			k.v6only = len(value) == 1 && value[0] != 0
		}
	}
	return k, nil
}

// socketOwners returns, by inode, a process that has each of the sockets: the one with
// the lowest process id. It stops once each socket has one.
func socketOwners(ctx context.Context, sockets []diagSocket) (map[uint32]int, error) {
	left := map[uint32]bool{}
	for _, k := range sockets {
		left[k.inode] = true
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	owners := map[uint32]int{}
	for _, pid := range pids {
		if len(left) == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // ended in the meantime
		}
		for _, fd := range fds {
			target, err := os.Readlink(filepath.Join(dir, fd.Name()))
			if err != nil {
				continue
			}
			if inode, ok := socketInode(target); ok && left[inode] {
				owners[inode] = pid
				delete(left, inode)
			}
		}
	}
	return owners, nil
}

// socketInode reads "socket:[12345]".
func socketInode(link string) (uint32, bool) {
	num, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	num, ok = strings.CutSuffix(num, "]")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(num, 10, 32)
	return uint32(n), err == nil
}

func processName(pid int) string {
	b, err := linux.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return "?"
	}
	return printable.Line(strings.TrimSpace(string(b))) // the process chooses its name itself
}
