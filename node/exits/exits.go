package exits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/bpf"
	"github.com/vsfleet/vsfleet/internal/linux"
)

// Exit is how the process 1 of a guest ended.
type Exit struct {
	Since time.Duration   // since the host's boot, suspension included
	How   unix.WaitStatus // a reboot is SIGHUP, a power-off SIGINT (reboot(2))
}

// ErrUnsupported means that the kernel cannot tell how guests end.
var ErrUnsupported = errors.New("the kernel does not tell how guests end (it needs CONFIG_DEBUG_INFO_BTF and CONFIG_BPF_EVENTS)")

// ErrNone means that the guest is not watched, or has not ended.
var ErrNone = errors.New("nothing is known of its end")

const (
	pin     = linux.BPFFS + "/vservers/exits"
	program = "vs_exits"

	// The key of an entry is the id of the guest's cgroup. It begins with the device
	// and inode of the pid namespace.
	inodeAt, timeAt, codeAt, rebootAt, valueSize = 8, 16, 24, 28, 32

	maxGuests = 1 << 16
)

// Watch begins to watch a guest: its cgroup, and its pid namespace as a file.
func Watch(cgroup, pidns *os.File) error {
	key, err := cgroupID(cgroup)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(pidns.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: pidns.Name(), Err: err}
	}
	m, err := open()
	if errors.Is(err, fs.ErrNotExist) {
		if err = attach(); err == nil {
			m, err = open()
		}
	}
	if err != nil {
		return fmt.Errorf("watch for the guest's end: %w", err)
	}
	value := make([]byte, valueSize)
	// As the kernel has a device number, not as stat(2) does.
	binary.NativeEndian.PutUint64(value, uint64(unix.Major(st.Dev))<<20|uint64(unix.Minor(st.Dev)))
	binary.NativeEndian.PutUint64(value[inodeAt:], st.Ino)
	if err := bpf.Update(m, key, unsafe.Pointer(&value[0]), unix.BPF_ANY); err != nil {
		return fmt.Errorf("watch for the guest's end: %w", err)
	}
	return nil
}

// Look returns how the guest of a cgroup ended, or ErrNone.
func Look(cgroup string) (Exit, error) {
	value := make([]byte, valueSize)
	err := entry(cgroup, func(m bpf.FD, key uint64) error { return bpf.Lookup(m, key, unsafe.Pointer(&value[0])) })
	if err != nil {
		return Exit{}, err
	}
	x := Exit{
		Since: time.Duration(binary.NativeEndian.Uint64(value[timeAt:])),
		How:   unix.WaitStatus(binary.NativeEndian.Uint32(value[codeAt:])),
	}
	if x.Since == 0 {
		return x, ErrNone
	}
	// zap_pid_ns_processes replaces the code by this later.
	if reboot := binary.NativeEndian.Uint32(value[rebootAt:]); reboot != 0 {
		x.How = unix.WaitStatus(reboot)
	}
	return x, nil
}

// Forget ends the watching of a guest, and must precede the removal of its cgroup.
func Forget(cgroup string) error {
	err := entry(cgroup, func(m bpf.FD, key uint64) error { return bpf.Delete(m, key) })
	if errors.Is(err, ErrNone) {
		return nil
	}
	return err
}

// entry calls f for the entry of a cgroup; ErrNone: there is none.
func entry(cgroup string, f func(m bpf.FD, key uint64) error) error {
	none := func(err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNone
		}
		return err
	}
	dir, err := linux.Open(cgroup, os.O_RDONLY, 0)
	if err != nil {
		return none(err)
	}
	defer dir.Close()
	key, err := cgroupID(dir)
	if err != nil {
		return err
	}
	m, err := open()
	if err != nil {
		return none(err)
	}
	return none(f(m, key))
}

// cgroupID returns what bpf_get_current_ancestor_cgroup_id returns: the inode.
func cgroupID(dir *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	return st.Ino, nil
}

// opened is the map as it was last opened, and the inode of its pin then: finding it
// takes longer than all else here.
var opened struct {
	sync.Mutex
	pin uint64 // 0: it was not opened yet
	m   bpf.FD
}

// open returns the map of the pinned program, which is not to be closed;
// fs.ErrNotExist: there is none.
func open() (bpf.FD, error) {
	opened.Lock()
	defer opened.Unlock()
	var st unix.Stat_t
	if err := unix.Lstat(pin, &st); err != nil {
		return -1, &fs.PathError{Op: "stat", Path: pin, Err: err}
	}
	if opened.pin == st.Ino {
		return opened.m, nil
	}
	m, err := find()
	if err != nil {
		return -1, err
	}
	// The old one, of a pin that was removed, may be in use: it stays open.
	opened.m, opened.pin = m, st.Ino
	return m, nil
}

func find() (bpf.FD, error) {
	l, err := bpf.Get(pin)
	if err != nil {
		return -1, err
	}
	defer l.Close()
	id, _, err := bpf.LinkInfo(l)
	if err != nil {
		return -1, err
	}
	p, err := bpf.Program(id)
	if err != nil {
		return -1, err
	}
	defer p.Close()
	name, maps, err := bpf.ProgramInfo(p)
	if err != nil {
		return -1, err
	}
	if len(maps) != 1 || name != program {
		return -1, fmt.Errorf("%s is not vsnode's: remove it", pin)
	}
	return bpf.Map(maps[0])
}

// attach attaches and pins the program, unless another vsnode does so meanwhile.
func attach() error {
	if err := linux.MountBPF(); err != nil {
		return err
	}
	at, err := kernelFields()
	if err != nil {
		return errors.Join(ErrUnsupported, err)
	}
	m, err := bpf.NewMap(unix.BPF_MAP_TYPE_HASH, 8, valueSize, maxGuests, unix.BPF_F_NO_PREALLOC, program)
	if err != nil {
		return err
	}
	defer m.Close()
	code, err := bpf.Assemble(instructions(at), m)
	if err != nil {
		return err
	}
	p, err := bpf.Load(unix.BPF_PROG_TYPE_RAW_TRACEPOINT, 0, program, code)
	if err != nil {
		return errors.Join(ErrUnsupported, err)
	}
	defer p.Close()
	l, err := bpf.LinkTracepoint("sched_process_exit", p)
	if err != nil {
		return errors.Join(ErrUnsupported, err)
	}
	defer l.Close()
	if err := os.MkdirAll(linux.BPFFS+"/vservers", 0o700); err != nil {
		return err
	}
	if err := bpf.Pin(l, pin); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
