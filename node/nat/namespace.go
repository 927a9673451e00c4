package nat

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespace is a guest's network namespace. The host reaches it through sockets that
// were opened in it.
type namespace struct {
	*netlink.Handle
	file     *os.File // the namespace itself
	families []family
}

// openNamespace opens a namespace by its file or by a pidfd.
func openNamespace(f *os.File) (*namespace, error) {
	done := make(chan error)
	ns := &namespace{}
	go func() { done <- ns.open(f) }()
	if err := <-done; err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// open runs in its own goroutine, whose thread enters the namespace for a moment.
func (ns *namespace) open(f *os.File) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer home.Close()
	switch err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err {
	case nil:
	case unix.ESRCH:
		return fmt.Errorf("the guest's process is gone")
	case unix.EINVAL, unix.EBADF:
		return fmt.Errorf("%s is neither a network namespace nor a process that lives: %w", f.Name(), err)
	default:
		return fmt.Errorf("enter the guest's network namespace: %w", err)
	}
	defer func() {
		// A thread that cannot return stays locked, and ends with the goroutine.
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	if ns.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return fmt.Errorf("open the guest's network namespace: %w", err)
	}
	if ns.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink in the guest's network namespace: %w", err)
	}
	// Allow ping without a raw socket, as Debian does (icmp(7)). A new namespace
	// allows it to nobody.
	if err := set("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647"); err != nil {
		return err
	}
	ns.families, err = familiesOf("default")
	return err
}

func (ns *namespace) Close() {
	if ns.Handle != nil {
		ns.Handle.Close()
	}
	if ns.file != nil {
		ns.file.Close()
	}
}

// configure gives the guest's end its addresses and routes.
func (ns *namespace) configure(xid int) error {
	eth0, err := ns.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0 in the guest: %w", err)
	}
	lo, err := ns.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo in the guest: %w", err)
	}
	for _, f := range ns.families {
		addr := f.address(xid)
		if err := ns.AddrReplace(eth0, address(single(addr))); err != nil {
			return fmt.Errorf("put %s on the guest's eth0: %w", addr, err)
		}
	}
	for _, l := range []netlink.Link{lo, eth0} {
		if err := ns.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up in the guest: %w", l.Attrs().Name, err)
		}
	}
	for _, f := range ns.families {
		// onlink, because no prefix of the guest contains the gateway.
		if err := ns.RouteReplace(&netlink.Route{
			LinkIndex: eth0.Attrs().Index, Dst: ipNet(netip.PrefixFrom(f.address(0), 0).Masked()),
			Gw: f.gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
		}); err != nil {
			return fmt.Errorf("route the guest by %s: %w", f.gateway, err)
		}
	}
	return nil
}
