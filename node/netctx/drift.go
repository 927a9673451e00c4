package netctx

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/probe"
)

// View is the state of the host's network at one moment. It is read once and
// compared with what many guests should have.
type View struct {
	on       map[place]bool
	devices  map[string]*netlink.LinkAttrs
	programs map[ebpf.ProgramID]string
	hooks    []hook
	pinned   map[ebpf.ProgramID]bool // egress programs of all versions
	hosts    map[netip.Addr]HostAddress
	pings    map[int]bool // XIDs in the table of pings; nil: not read yet
}

// egress stands for all programs of an object: they are pinned and removed together.
const egress = "vs_egress"

type place struct {
	addr  netip.Addr
	index int
}

// Look reads the parts of a View that do not depend on a guest.
func Look() (*View, error) {
	v := &View{on: map[place]bool{}, devices: map[string]*netlink.LinkAttrs{}, programs: map[ebpf.ProgramID]string{}, hooks: hooks[:], pinned: map[ebpf.ProgramID]bool{}, hosts: map[netip.Addr]HostAddress{}}
	guard, err := Guard()
	if guard == GuardHooks {
		v.hooks = slices.Concat(v.hooks, unixHooks[:])
	} else if err != nil && !errors.Is(err, probe.ErrMissing) {
		return nil, err
	}
	if err := eachAddress(func(a deviceAddress, index int) {
		v.on[place{a.prefix.Addr(), index}] = true
		v.hosts[a.prefix.Addr()] = HostAddress{index, a.ours}
	}); err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	pins, err := filepath.Glob(filepath.Join(pins, "*", egress))
	if err != nil {
		return nil, err
	}
	for _, path := range pins {
		id, err := pinnedID(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in the meantime
		}
		if err != nil {
			return nil, err
		}
		v.pinned[id] = true
	}
	return v, nil
}

// Drift returns which of the addresses that AddAddresses added to a device are
// missing, as one text each. A device that is down loses its IPv6 addresses and is left
// alone; the text then reports that it is down.
func (v *View) Drift(dev string, prefixes []netip.Prefix) (gone []string, err error) {
	link, known := v.devices[dev]
	if !known {
		l, err := netlink.LinkByName(dev)
		if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil, fmt.Errorf("find device %s: %w", dev, err)
		}
		if err == nil {
			link = l.Attrs()
		}
		v.devices[dev] = link
	}
	if link == nil {
		return []string{fmt.Sprintf("device %s is gone", dev)}, nil
	}
	if link.Flags&net.FlagUp == 0 {
		gone = append(gone, fmt.Sprintf("device %s is down", dev))
	}
	for _, p := range prefixes {
		if !v.on[place{p.Addr(), link.Index}] {
			gone = append(gone, fmt.Sprintf("address %s is gone from %s", p.Addr(), dev))
		}
	}
	return gone, nil
}

// Loopback6Drift reports whether the address that EnsureLoopback6 added is missing.
func (v *View) Loopback6Drift(addr netip.Addr) ([]string, error) {
	if off, err := linux.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6"); err != nil || len(off) > 0 && off[0] != '0' {
		return nil, nil // it could not be added
	}
	return v.Drift("lo", []netip.Prefix{netip.PrefixFrom(addr, 128)})
}

// PingDrift returns what is missing of what PingFrom added. Without nftables, nothing
// was added.
func (v *View) PingDrift(s Spec) (gone []string, err error) {
	if !s.mayBeMistaken(v.hosts) {
		return nil, nil
	}
	if v.pings == nil {
		if v.pings, err = pingContexts(); err != nil {
			return nil, err
		}
	}
	if !v.pings[s.XID] {
		gone = append(gone, fmt.Sprintf("the source of its pings is gone from nftables table inet %s", pingTable))
	}
	return gone, nil
}

// ProgramDrift returns the programs that Attach attached to the cgroup and that are
// no longer attached.
func (v *View) ProgramDrift(cgroup *os.File) (gone []string, err error) {
	missing := 0
	for _, h := range v.hooks {
		at, err := v.attached(cgroup, h)
		if err != nil {
			return nil, err
		}
		if at == 0 {
			missing++
		} else if h.name == egress && !v.pinned[at] {
			gone = append(gone, fmt.Sprintf("the pins of its network programs are gone from %s: what listens on one of its addresses is not found on the others", pins))
		}
	}
	if missing > 0 {
		gone = append(gone, fmt.Sprintf("%d of the %d network programs are gone from its cgroup", missing, len(v.hooks)))
	}
	return gone, nil
}

// attached returns our program at a hook of a cgroup, or 0 if there is none. Others
// may have attached programs there, too.
func (v *View) attached(cgroup *os.File, h hook) (ebpf.ProgramID, error) {
	progs, err := bpf.Attached(int(cgroup.Fd()), uint32(h.at))
	if err != nil {
		return 0, fmt.Errorf("look for program %s on %s: %w", h.name, cgroup.Name(), err)
	}
	for _, p := range progs {
		id := ebpf.ProgramID(p)
		name, known := v.programs[id]
		if !known {
			if name, err = nameOf(id); err != nil {
				return 0, err
			}
			v.programs[id] = name
		}
		if name == h.name {
			return id, nil
		}
	}
	return 0, nil
}

func nameOf(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", fmt.Errorf("look at program %d: %w", id, err)
	}
	return info.Name, nil
}

// Restore attaches the programs that ProgramDrift reports and rewrites the guest's
// settings, while the guest runs. A socket that the guest bound in between, without a
// program to check it, stays bound, but sends and receives nothing.
func Restore(cgroup *os.File, s Spec) error {
	if err := restore(cgroup, s); err != nil {
		return fmt.Errorf("restore network context of %s: %w", cgroup.Name(), err)
	}
	return nil
}

func restore(cgroup *os.File, s Spec) error {
	set, dir, err := s.prepare(cgroup)
	if err != nil {
		return err
	}
	v := View{programs: map[ebpf.ProgramID]string{}}
	missing, err := v.missingHooks(cgroup, dir)
	if err != nil {
		return err
	}
	for _, h := range missing {
		if err := attachPinned(cgroup, dir, h); err != nil {
			return err
		}
	}
	if guard, _ := Guard(); guard == GuardHooks {
		if err := v.restoreUnix(cgroup); err != nil {
			return err
		}
	}
	return putSettings(dir, set)
}

// missingHooks returns the hooks of a cgroup that have no program of a network
// context. It returns an error if other hooks have programs that are not those in dir:
// programs of two objects use two maps of settings.
func (v *View) missingHooks(cgroup *os.File, dir string) (missing []hook, err error) {
	for _, h := range hooks {
		on, err := v.attached(cgroup, h)
		if err != nil {
			return nil, err
		}
		if on == 0 {
			missing = append(missing, h)
			continue
		}
		ours, err := pinnedID(filepath.Join(dir, h.name))
		if err != nil {
			return nil, err
		}
		if on != ours {
			return nil, errors.New("its programs are of another version of vsnode, or not pinned any more: restart the guest")
		}
	}
	return missing, nil
}

// restoreUnix attaches the missing ones of unixHooks.
func (v *View) restoreUnix(cgroup *os.File) error {
	dir, err := ensurePinned(_UnixsockBytes, pinUnix)
	if err != nil {
		return err
	}
	for _, h := range unixHooks {
		on, err := v.attached(cgroup, h)
		if err == nil && on == 0 {
			err = attachPinned(cgroup, dir, h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func pinnedID(path string) (ebpf.ProgramID, error) {
	p, err := ebpf.LoadPinnedProgram(path, nil)
	if err != nil {
		return 0, fmt.Errorf("open program %s: %w", path, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	return id, nil
}
