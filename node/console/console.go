package console

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
)

// Node is the path of a guest's console inside the guest.
const Node = "/proc/sys/kernel/ns_last_pid"

// ErrUnsupported means that the kernel cannot keep a console.
var ErrUnsupported = errors.New("the kernel cannot keep guests' consoles (it needs CONFIG_CHECKPOINT_RESTORE and CONFIG_CGROUP_BPF)")

// ErrNone means that a cgroup has no console.
var ErrNone = errors.New("the guest has no console")

// Start identifies a start of a guest, and what it writes: no two starts have the same.
type Start struct {
	Since   time.Duration // since the host's boot
	Context int
}

// Attach gives a new cgroup a console, before any process is in it.
func Attach(cgroup *os.File, s Start) error {
	if _, err := os.Stat(Node); errors.Is(err, fs.ErrNotExist) {
		return ErrUnsupported
	}
	if err := attach(cgroup, s); err != nil {
		return fmt.Errorf("attach console to %s: %w", cgroup.Name(), err)
	}
	return nil
}

func attach(cgroup *os.File, s Start) error {
	p, err := open()
	if err != nil {
		return err
	}
	defer p.Close()
	if err := bpf.Attach(int(cgroup.Fd()), p, uint32(ebpf.AttachCGroupSysctl)); err != nil {
		return err
	}
	m, err := mapsOf(p)
	if err != nil {
		return err
	}
	defer m.Close()
	id, err := cgroupID(cgroup)
	if err != nil {
		return err
	}
	h := head{boot: uint64(s.Since), context: uint32(s.Context)}
	return bpf.Update(m[heads], id, unsafe.Pointer(&h), unix.BPF_EXIST) // which attaching has made
}

// Text is the output of a guest.
type Text struct {
	Bytes []byte // its end, at most 50 KiB
	Total uint64 // number of bytes ever written
}

// Read returns the console output of a guest's cgroup, or ErrNone if the cgroup has
// no console.
func Read(cgroup string) (t Text, err error) {
	err = attached(cgroup, func(m maps, h head) error {
		t, err = h.read(m)
		return err
	})
	if err != nil && !errors.Is(err, ErrNone) {
		err = fmt.Errorf("read console of %s: %w", cgroup, err)
	}
	return t, err
}

// Forget gives back the memory of what a guest wrote that has no processes any more. It
// is to be called before the cgroup is removed; afterwards it still does it for those
// that this version has started.
func Forget(cgroup string, s Start) error {
	err := attached(cgroup, func(m maps, h head) error { return h.forget(m) })
	if !errors.Is(err, ErrNone) {
		return err
	}
	p, err := pinned()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	m, err := mapsOf(p)
	if err != nil {
		return err
	}
	defer m.Close()
	h := head{total: 1, boot: uint64(s.Since), context: uint32(s.Context)} // how much it has written is not known
	return h.forget(m)
}

// attached calls f for the console of a cgroup.
func attached(cgroup string, f func(maps, head) error) error {
	dir, err := linux.Open(cgroup, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	id, err := cgroupID(dir)
	if err != nil {
		return err
	}
	ids, err := bpf.Attached(int(dir.Fd()), uint32(ebpf.AttachCGroupSysctl))
	if err != nil {
		return err
	}
	for _, program := range ids {
		p, err := bpf.Program(program)
		if errors.Is(err, fs.ErrNotExist) { // detached meanwhile
			continue
		}
		if err != nil {
			return err
		}
		defer p.Close()
		m, err := mapsOf(p)
		if errors.Is(err, ErrNone) { // of others
			continue
		}
		if err != nil {
			return err
		}
		defer m.Close()
		var h head
		if err := bpf.Lookup(m[heads], id, unsafe.Pointer(&h)); err != nil {
			return err
		}
		return f(m, h)
	}
	return ErrNone
}

// mapsOf opens the maps of a program, or returns ErrNone if it is none of a console.
func mapsOf(p bpf.FD) (m maps, err error) {
	name, ids, err := bpf.ProgramInfo(p)
	if err != nil {
		return m, err
	}
	if name != program || len(ids) != len(m) {
		return m, ErrNone
	}
	if m[heads], err = bpf.Map(ids[heads]); err == nil {
		m[parts], err = bpf.Map(ids[parts])
	}
	if err != nil {
		m.Close()
	}
	return m, err
}

// The most that is read: a write in progress may overwrite the oldest bytes, and those of
// a part that are behind the one before it go with that.
const readSize = 50 << 10

var _ [(partCount-1)*partSize - 2*writeSize - readSize]struct{} // they are there

// read returns the end of what was written, in the order in which it was.
func (h head) read(m maps) (Text, error) {
	t := Text{Total: h.total}
	values := map[uint64][]byte{}
	part := func(number uint64) (value []byte, err error) {
		k := key{h.boot, h.context, uint32(number % partCount)}
		if value = values[number]; value == nil {
			value = make([]byte, valueSize)
			values[number] = value
			err = bpf.Lookup(m[parts], k, unsafe.Pointer(&value[0]))
			if errors.Is(err, fs.ErrNotExist) { // there was no memory for it
				err = nil
			}
		}
		return value, err
	}
	for from := h.total - min(h.total, readSize); from < h.total; {
		number, at := from/partSize, from%partSize
		value, err := part(number)
		if err != nil {
			return t, err
		}
		end := min(partSize, at+h.total-from)
		ring := value[wordSize:]
		if number > 0 {
			before, err := part(number - 1)
			if err != nil {
				return t, err
			}
			word := binary.NativeEndian.Uint64(before)
			if behind := word & 0xffff; word>>16 == number-1 && at < behind && behind <= writeSize {
				end, ring = min(end, behind), before[wordSize+partSize:]
			}
		}
		t.Bytes = append(t.Bytes, ring[at:end]...)
		from += end - at
	}
	// NULs come from a write in progress, or from the guest.
	t.Bytes = bytes.ReplaceAll(t.Bytes, []byte{0}, nil)
	return t, nil
}

func (h head) forget(m maps) error {
	for part := range uint32(partCount) {
		if h.total == 0 {
			break
		}
		if err := bpf.Delete(m[parts], key{h.boot, h.context, part}); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget console: %w", err)
		}
	}
	return nil
}

// cgroupID returns the kernel's id of the cgroup, the inode of its directory.
func cgroupID(dir *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	return st.Ino, nil
}
