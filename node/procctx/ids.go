package procctx

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// IDs is the number of user and group ids that a guest has: all 16-bit ids, so
// that every id of an ordinary distribution is mapped, including nobody (65534).
const IDs = 1 << 16

// BaseID returns the host's id of a guest's root: the upper 16 bits of an id on
// the host are the context that it belongs to.
func BaseID(xid int) int { return xid * IDs }

// ContextOf returns the context that an id on the host belongs to.
func ContextOf(id int) int { return id / IDs }

// mapIDs maps the guest's ids into the user namespace of pid. It works from outside
// only: mapping a range takes the host's root (user_namespaces(7)).
func mapIDs(pid, xid int) error {
	m := []byte("0 " + strconv.Itoa(BaseID(xid)) + " " + strconv.Itoa(IDs))
	for _, name := range []string{"uid_map", "gid_map"} {
		if err := linux.WriteFile(linux.ProcFile(pid, name), m, 0); err != nil {
			return fmt.Errorf("map ids of context %d: %w", xid, err)
		}
	}
	return nil
}

// actAsCreator makes the calling thread the guest's root where the kernel asks who
// creates an object, and keeps all capabilities. The saved id stays the host's root.
func actAsCreator(xid int) error {
	id := uintptr(BaseID(xid))
	for _, nr := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
		// Raw: package syscall would change every thread.
		if _, _, errno := unix.RawSyscall(nr, id, id, 0); errno != 0 {
			return fmt.Errorf("act as the guest's root: %w", errno)
		}
	}
	return raiseCaps(0)
}

// raiseCaps makes all permitted capabilities of the calling thread effective again
// after a change of its ids took them, and gives up those in drop.
func raiseCaps(drop uint32) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	data[0].Permitted &^= drop
	for i := range data {
		data[i].Effective = data[i].Permitted
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// actAsMounter gives the calling thread the credentials with which overlayfs
// works in the guest's layers: the guest's root as the owner of new files (an
// idmapped layer can hold no other), and all capabilities except one. With
// CAP_SYS_RESOURCE, a guest's writes would ignore quotas and use up the blocks
// that are reserved for the host's root.
func actAsMounter(xid int) error {
	for _, nr := range []uintptr{unix.SYS_SETFSGID, unix.SYS_SETFSUID} {
		// Raw: package syscall would change every thread. Returns the old id, never an error.
		unix.RawSyscall(nr, uintptr(BaseID(xid)), 0, 0)
	}
	return raiseCaps(1 << unix.CAP_SYS_RESOURCE)
}
