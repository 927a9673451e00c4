package netctx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/probe"
)

// ErrNotAttached means that the cgroup has no network context.
var ErrNotAttached = errors.New("cgroup has no network context")

// Attach attaches a network context to the guest's new cgroup, before any process is
// in it. It refuses a cgroup that was used before: the programs attached to it would
// decide first.
func Attach(cgroup *os.File, s Spec) error {
	if err := attach(cgroup, s); err != nil {
		return fmt.Errorf("attach network context to %s: %w", cgroup.Name(), err)
	}
	return nil
}

func attach(cgroup *os.File, s Spec) error {
	set, dir, err := s.prepare(cgroup)
	if err != nil {
		return err
	}
	old, err := bpf.Attached(int(cgroup.Fd()), uint32(ebpf.AttachCGroupInetSockCreate))
	if err != nil {
		return err
	}
	if len(old) > 0 {
		return errors.New("it has programs already: make a fresh cgroup")
	}
	for _, h := range hooks {
		if err := attachPinned(cgroup, dir, h); err != nil {
			return err
		}
	}
	// If nothing closes the host's abstract sockets, the caller, which asks Guard,
	// decides whether the guest starts.
	guard, err := Guard()
	switch {
	case guard == GuardHooks:
		err = closeUnix(cgroup)
	case guard == GuardLSM:
		err = closeUnixLSM(s.XID, set.Cgroup)
	case errors.Is(err, probe.ErrMissing):
		err = nil
	}
	if err != nil {
		return err
	}
	return putSettings(dir, set)
}

// prepare returns the settings of a cgroup's network context, and the directory of
// the pinned programs.
func (s Spec) prepare(cgroup *os.File) (set netctxSettings, dir string, err error) {
	id, err := cgroupID(cgroup)
	if err != nil {
		return set, "", err
	}
	if set, err = s.settings(id); err != nil {
		return set, "", err
	}
	dir, err = ensureNetctx()
	return set, dir, err
}

// putSettings writes the settings for the cgroup that they name. Their storage exists
// once the first program is attached.
func putSettings(dir string, set netctxSettings) error {
	m, err := bpf.Get(filepath.Join(dir, settingsMap))
	if err != nil {
		return err
	}
	defer m.Close()
	// As put does.
	if err := bpf.Update(m, set.Cgroup, unsafe.Pointer(&set), unix.BPF_EXIST); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

func attachPinned(cgroup *os.File, dir string, h hook) error {
	p, err := bpf.Get(filepath.Join(dir, h.name))
	if err != nil {
		return err
	}
	defer p.Close()
	if err := bpf.Attach(int(cgroup.Fd()), p, uint32(h.at)); err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return nil
}

// Update changes what a running guest owns, all at once. A socket bound to an address
// that the guest no longer has sends and receives nothing more; a listener on a port
// that it no longer owns stays.
func Update(cgroup *os.File, s Spec) error {
	err := withMap(cgroup, settingsMap, unsafe.Sizeof(netctxSettings{}), func(m *ebpf.Map, id uint64) error {
		set, err := s.settings(id)
		if err != nil {
			return err
		}
		return put(m, id, &set)
	})
	if err != nil {
		return fmt.Errorf("update network context of %s: %w", cgroup.Name(), err)
	}
	return nil
}

// put replaces the settings. A program sees either the old or the new settings.
func put(m *ebpf.Map, id uint64, set *netctxSettings) error {
	if err := m.Update(id, set, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// Counters reads the traffic of many guests. Guests started by the same version of
// vsnode share a map, which is opened once. It is safe for concurrent use.
type Counters struct {
	mu     sync.Mutex
	maps   []*ebpf.Map
	looked int // for maps
}

// Close closes the maps.
func (c *Counters) Close() {
	for _, m := range c.maps {
		m.Close()
	}
}

// Traffic returns what the guest with this cgroup has received and sent since
// Attach, without dropped packets.
func (c *Counters) Traffic(cgroup string) (api.Traffic, error) {
	var t api.Traffic
	counters, err := c.read(cgroup)
	if err != nil {
		return t, fmt.Errorf("read traffic of %s: %w", cgroup, err)
	}
	for _, c := range counters {
		add := func(to *api.Count, packets, bytes uint64) {
			to.Packets += packets
			to.Bytes += bytes
		}
		add(&t.V4In, c.V4In.Packets, c.V4In.Bytes)
		add(&t.V4Out, c.V4Out.Packets, c.V4Out.Bytes)
		add(&t.V6In, c.V6In.Packets, c.V6In.Bytes)
		add(&t.V6Out, c.V6Out.Packets, c.V6Out.Bytes)
	}
	return t, nil
}

func (c *Counters) read(cgroup string) (percpu []netctxCounters, err error) {
	var st unix.Stat_t
	if err := unix.Stat(cgroup, &st); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A map has a cgroup's counters only while its programs are on it.
	for _, m := range c.maps {
		err := m.Lookup(st.Ino, &percpu)
		if err == nil || !errors.Is(err, ebpf.ErrKeyNotExist) {
			return percpu, err
		}
	}
	dir, err := linux.Open(cgroup, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c.looked++
	err = withMap(dir, trafficMap, unsafe.Sizeof(netctxCounters{}), func(m *ebpf.Map, id uint64) error {
		if err := m.Lookup(id, &percpu); err != nil {
			return err
		}
		kept, err := m.Clone()
		if err == nil {
			c.maps = append(c.maps, kept)
		}
		return err
	})
	return percpu, err
}

// RefusedPorts returns how often the guest was refused a port on its addresses that it
// does not own, and the last such port. Inside the guest, only the errors of its
// programs show this.
func RefusedPorts(cgroup *os.File) (times uint64, last port.Range, err error) {
	err = withMap(cgroup, trafficMap, unsafe.Sizeof(netctxCounters{}), func(m *ebpf.Map, id uint64) error {
		var percpu []netctxCounters
		if err := m.Lookup(id, &percpu); err != nil {
			return err
		}
		for _, c := range percpu {
			times += c.Refused
			if c.Refused == 0 {
				continue
			}
			last = port.Range{Proto: port.TCP, First: uint16(c.RefusedPort), Last: uint16(c.RefusedPort)}
			if c.RefusedPort>>16 == unix.IPPROTO_UDP {
				last.Proto = port.UDP
			}
		}
		return nil
	})
	if err != nil {
		return 0, last, fmt.Errorf("read refused ports of %s: %w", cgroup.Name(), err)
	}
	return times, last, nil
}

// withMap calls do with a map of the programs on the cgroup. These belong to the
// version of vsnode that started the guest, which may be another one.
func withMap(cgroup *os.File, name string, size uintptr, do func(m *ebpf.Map, id uint64) error) error {
	id, err := cgroupID(cgroup)
	if err != nil {
		return err
	}
	// The egress program uses both maps.
	progs, err := bpf.Attached(int(cgroup.Fd()), uint32(ebpf.AttachCGroupInetEgress))
	if err != nil {
		return err
	}
	for _, p := range progs {
		m, err := mapOf(ebpf.ProgramID(p), name, uint32(size))
		if err != nil {
			return err
		}
		if m != nil {
			defer m.Close()
			return do(m, id)
		}
	}
	return ErrNotAttached
}

// mapOf opens the map with that name that a program uses, or returns nil if there is
// none. In another version of vsnode, its values may differ in layout and size.
func mapOf(id ebpf.ProgramID, name string, size uint32) (*ebpf.Map, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		info, err := m.Info()
		if err != nil {
			m.Close()
			return nil, err
		}
		if info.Name == name && m.ValueSize() == size {
			return m, nil
		}
		m.Close()
		if info.Name == name {
			return nil, errors.New("the guest was started by another version of vsnode: restart it")
		}
	}
	return nil, nil
}

// cgroupID returns the kernel's id of the cgroup, the inode of its directory.
func cgroupID(cgroup *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(cgroup.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", cgroup.Name(), err)
	}
	return st.Ino, nil
}
