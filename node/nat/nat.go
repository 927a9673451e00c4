package nat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/probe"
)

// Guest is a guest in nat mode.
type Guest struct {
	XID      int
	Name     string
	Forwards []port.Forward
	Metadata bool // it may reach the metadata service of the host's cloud
}

// Want is the state that Sync brings about.
type Want struct {
	// Guests in nat mode that have a process. All others lose their veth.
	Guests []Guest
	// Reserved are addresses on the host's devices which belong to guests in
	// its network namespace (own addresses, stand-ins for their ::1): no
	// forward takes a port of them.
	Reserved []netip.Addr
}

// Attach puts eth0 into a guest's network namespace, with the guest's
// addresses, default routes and lo up; the veth's other end is vs<XID> on the
// host. The namespace is a file of /proc/PID/ns/net, or a pidfd. The guest's
// packets pass from the next Sync on that names it.
//
// A guest that is attached already stays so. An Attach that fails leaves
// nothing behind.
func Attach(ctx context.Context, netns *os.File, xid int) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("attach context %d to its private network: %w", xid, err)
		}
	}()
	if err := checkXID(xid); err != nil {
		return err
	}
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()

	guest, err := openNamespace(netns)
	if err != nil {
		return err
	}
	defer guest.Close()
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer host.Close()

	// The guard first: it drops what comes from a guest that it does not know.
	undo, err := ensureTables()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo())
		}
	}()
	veth, made, err := ensureVeth(host, guest, xid)
	if err != nil {
		return err
	}
	if made {
		defer func() {
			if err != nil {
				err = errors.Join(err, host.LinkDel(veth))
			}
		}()
	}
	if err := configureVeth(host, veth, xid); err != nil {
		return err
	}
	if err := guest.configure(xid); err != nil {
		return err
	}
	// A veth sends when the kernel has taken notice of its carrier, which it does
	// some time later, or when it is asked for the device (kernel 6.8): the first
	// packet to the guest shall not be lost.
	if _, err := host.LinkByIndex(veth.Attrs().Index); err != nil {
		return fmt.Errorf("find device %s: %w", veth.Attrs().Name, err)
	}
	return nil
}

// Detach removes what Attach made of one guest. It is for undoing a start: a
// guest that ended takes its veth along, and Sync clears up after it.
func Detach(ctx context.Context, xid int) error {
	unlock, err := lock(ctx)
	if err != nil {
		return fmt.Errorf("detach context %d: %w", xid, err)
	}
	defer unlock()
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("detach context %d: open netlink: %w", xid, err)
	}
	defer host.Close()
	veth, err := findLink(host, deviceName(xid))
	if err == nil && veth != nil && isOurs(veth) {
		err = deleteLink(host, veth)
	}
	if err != nil {
		return fmt.Errorf("detach context %d: %w", xid, err)
	}
	return nil
}

// Sync makes the table and the host's forwarding what the running guests need.
//
// want is asked while Sync holds the lock: of two vsnode at once, the one that
// comes second sees what the first has done, and an older list never
// replaces a newer one. A guest has a process before Attach is called for it, so
// that a veth which want does not name is a dead guest's.
func Sync(ctx context.Context, want func(context.Context) (Want, error)) error {
	return apply(ctx, func(*Want) (Want, error) { return want(ctx) })
}

// Add is Sync after a start: it adds more to what the last Sync brought about,
// and asks for all that there should be only where that is not known, or leaves
// no room for it. Guests and addresses that are there already are replaced.
func Add(ctx context.Context, more Want, want func(context.Context) (Want, error)) error {
	if _, err := os.Stat(lockPath); len(more.Guests) == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil // nobody has a private network
	}
	return apply(ctx, func(last *Want) (Want, error) {
		if last == nil {
			return want(ctx)
		}
		w := without(*last, more)
		w.Guests = slices.DeleteFunc(w.Guests, func(g Guest) bool {
			return slices.ContainsFunc(more.Guests, func(m Guest) bool { return m.XID == g.XID })
		})
		w.Guests, w.Reserved = append(w.Guests, more.Guests...), append(w.Reserved, more.Reserved...)
		if _, err := translations(w.Guests); err != nil { // with one that has just ended
			return want(ctx)
		}
		return w, nil
	})
}

// apply brings about the state that choose returns. last is what the tables hold,
// nil if that is not known.
func apply(ctx context.Context, choose func(last *Want) (Want, error)) error {
	if err := applyLocked(ctx, choose); err != nil {
		return fmt.Errorf("set up private networks: %w", err)
	}
	return nil
}

func applyLocked(ctx context.Context, choose func(last *Want) (Want, error)) error {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	ports, err := probe.EphemeralPorts()
	if err != nil {
		return err
	}
	last, err := readRecord()
	if err != nil {
		return err
	}
	l, err := newLayout()
	if err != nil {
		return err
	}
	now, err := l.readState(last, ports)
	if err != nil {
		return err
	}
	var known *Want
	if now.recorded {
		known = &last.Want
	}
	w, err := choose(known)
	if err != nil {
		return err
	}
	ws, err := translations(w.Guests)
	if err != nil {
		return err
	}
	if err := refuseEphemeral(ws, ports); err != nil {
		return err
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer host.Close()

	// Veths go before the guard goes, which is with the last guest.
	if err := removeOthers(host, w.Guests, last.Want.Guests, now.recorded); err != nil {
		return err
	}
	switch {
	case len(w.Guests) > 0:
		err = errors.Join(l.install(now, last.Want, w, ports), enableForwarding(host))
	case !now.empty:
		err = removeTables()
	}
	if err != nil {
		return err
	}
	if err := endFlows(host, last.Want, w, ws); err != nil {
		return err
	}
	if last.Generation, err = now.next(); err != nil {
		return err
	}
	last.Layout, last.Want = now.layout, w
	return last.write()
}

// install changes the tables to what w needs, by as little as possible.
func (l *layout) install(now tableState, last, w Want, ports port.Range) error {
	all := func() error { return l.replace(w.elements(resolveAll(w.Guests), ports)) }
	if now.elements == nil {
		return all()
	}
	have, want := now.elements, w
	if now.recorded { // of the other guests nothing changes
		was := without(last, w)
		have, want = was.elements(resolveAll(was.Guests), ports), without(w, last)
	}
	if l.alter(have, want.elements(resolveAll(want.Guests), ports)) == nil {
		return nil
	}
	return all() // somebody changed them just now
}
