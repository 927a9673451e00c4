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
	// Guests are those in nat mode that have a process. All others lose their veth.
	Guests []Guest
	// Reserved holds addresses on the host's devices that belong to guests in its
	// network namespace (their own addresses, and those that stand for their ::1).
	// No forward applies to them.
	Reserved []netip.Addr
}

// Attach creates eth0 in a guest's network namespace, with the guest's addresses
// and default routes, and sets lo up. The other end of the veth is vs<XID> on the
// host. The namespace is given as an open /proc/PID/ns/net, or as a pidfd. The
// guest's packets pass once a Sync has included the guest.
//
// Attaching a guest again changes nothing. An Attach that fails leaves nothing
// behind.
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

	// The guard comes first: it drops what comes from an unknown guest.
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
	// A veth sends only after the kernel has noticed its carrier, which happens some
	// time later, or when somebody asks for the device (kernel 6.8). Ask for it, so
	// that the first packet to the guest is not lost.
	if _, err := host.LinkByIndex(veth.Attrs().Index); err != nil {
		return fmt.Errorf("find device %s: %w", veth.Attrs().Name, err)
	}
	return nil
}

// Detach removes what Attach made for one guest. It undoes a start: the veth of a
// guest that ends disappears with it, and Sync removes the rest.
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

// Sync sets the tables and the host's forwarding to what the running guests need.
//
// Sync calls want while it holds the lock. If two vsnode run at once, the second
// sees what the first has done, and an older list never replaces a newer one. A
// guest has a process before Attach is called for it, so a veth that want does not
// name belongs to a dead guest.
func Sync(ctx context.Context, want func(context.Context) (Want, error)) error {
	return apply(ctx, func(*Want) (Want, error) { return want(ctx) })
}

// Add is Sync after a start: it adds more to the state that the last Sync left, and
// replaces guests and addresses that are there already. It calls want only if that
// state is unknown or conflicts with more.
func Add(ctx context.Context, more Want, want func(context.Context) (Want, error)) error {
	if _, err := os.Stat(lockPath); len(more.Guests) == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil // no guest has a private network
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
		if _, err := translations(w.Guests); err != nil { // conflicts, perhaps with a guest that has just ended
			return want(ctx)
		}
		return w, nil
	})
}

// apply makes the tables and devices match the state that choose returns. last is
// the state that the tables hold, or nil if it is unknown.
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

	// Remove veths before the guard, which is removed with the last guest.
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

// install changes the tables to what w needs, with as few changes as possible.
func (l *layout) install(now tableState, last, w Want, ports port.Range) error {
	all := func() error { return l.replace(w.elements(resolveAll(w.Guests), ports)) }
	if now.elements == nil {
		return all()
	}
	have, want := now.elements, w
	if now.recorded { // nothing changes for the other guests
		was := without(last, w)
		have, want = was.elements(resolveAll(was.Guests), ports), without(w, last)
	}
	if l.alter(have, want.elements(resolveAll(want.Guests), ports)) == nil {
		return nil
	}
	return all() // somebody changed them just now
}
