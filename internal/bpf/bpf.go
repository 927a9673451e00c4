package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FD is an open program, map or link.
type FD int

// Close closes it. What is attached or pinned stays.
func (fd FD) Close() { unix.Close(int(fd)) }

func call(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		switch {
		case errno == 0:
			return int(r), nil
		case errno == unix.EINTR, errno == unix.EAGAIN && cmd == unix.BPF_PROG_LOAD: // a signal came: those of Go's scheduler are frequent
			continue
		}
		return -1, errno
	}
}

// objAttr and those below are the parts of union bpf_attr.
type objAttr struct {
	path  unsafe.Pointer
	fd    uint32
	flags uint32
}

// Get opens what is pinned at a path.
func Get(path string) (FD, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	attr := objAttr{path: unsafe.Pointer(name)}
	fd, err := call(unix.BPF_OBJ_GET, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return FD(fd), nil
}

// Pin pins an object at a path of a bpffs, where nothing may be.
func Pin(fd FD, path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	attr := objAttr{path: unsafe.Pointer(name), fd: uint32(fd)}
	if _, err := call(unix.BPF_OBJ_PIN, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return &fs.PathError{Op: "pin", Path: path, Err: err}
	}
	return nil
}

// Attach attaches a program to a cgroup, beside others there and above, which decide as
// well.
func Attach(cgroup int, program FD, at uint32) error {
	attr := struct{ target, program, at, flags uint32 }{uint32(cgroup), uint32(program), at, unix.BPF_F_ALLOW_MULTI}
	_, err := call(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// Link attaches a program to a target, such as a network namespace, until the link is
// closed and not pinned anywhere.
func Link(target int, program FD, at uint32) (FD, error) {
	attr := struct{ program, target, at, flags uint32 }{uint32(program), uint32(target), at, 0}
	fd, err := call(unix.BPF_LINK_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return FD(fd), err
}

// LinkTracepoint attaches a program to a raw tracepoint of the kernel, or to what it was
// loaded for if the name is empty (BPF LSM).
func LinkTracepoint(name string, program FD) (FD, error) {
	attr := struct {
		name    unsafe.Pointer
		program uint32
		_       uint32
	}{program: uint32(program)}
	if name != "" {
		text, err := unix.BytePtrFromString(name)
		if err != nil {
			return -1, err
		}
		attr.name = unsafe.Pointer(text)
	}
	fd, err := call(unix.BPF_RAW_TRACEPOINT_OPEN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return FD(fd), err
}

// Attached returns the ids of the programs that are attached to a cgroup itself.
func Attached(cgroup int, at uint32) ([]uint32, error) {
	var ids [64]uint32 // BPF_CGROUP_MAX_PROGS
	attr := struct {
		target, at, flags, attachFlags uint32
		ids                            unsafe.Pointer
		count, _                       uint32
		_                              [32]byte // which newer kernels write to
	}{target: uint32(cgroup), at: at, ids: unsafe.Pointer(&ids), count: uint32(len(ids))}
	if _, err := call(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return nil, err
	}
	return ids[:attr.count], nil
}

// Program opens a program by its id, and Map a map. fs.ErrNotExist: it is gone.
func Program(id uint32) (FD, error) { return byID(unix.BPF_PROG_GET_FD_BY_ID, id) }

// Map opens a map by its id.
func Map(id uint32) (FD, error) { return byID(unix.BPF_MAP_GET_FD_BY_ID, id) }

func byID(cmd uintptr, id uint32) (FD, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	fd, err := call(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return FD(fd), err
}

func info(fd FD, to unsafe.Pointer, size uintptr) error {
	attr := struct {
		fd, size uint32
		info     unsafe.Pointer
	}{uint32(fd), uint32(size), to}
	_, err := call(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// ProgramInfo returns the name of a program and the ids of its maps, at most 16.
func ProgramInfo(program FD) (name string, maps []uint32, err error) {
	var ids [16]uint32
	i := struct { // struct bpf_prog_info
		_     [52]byte
		count uint32
		maps  unsafe.Pointer
		name  [16]byte
	}{count: uint32(len(ids)), maps: unsafe.Pointer(&ids)}
	if err := info(program, unsafe.Pointer(&i), unsafe.Sizeof(i)); err != nil {
		return "", nil, fmt.Errorf("ask about a program: %w", err)
	}
	return unix.ByteSliceToString(i.name[:]), ids[:min(int(i.count), len(ids))], nil
}

// LinkInfo returns the id of a link's program and, if it is attached to a network
// namespace, the inode of that.
func LinkInfo(link FD) (program, netns uint32, err error) {
	const ofNetns = 5                                     // BPF_LINK_TYPE_NETNS
	var i struct{ kind, id, program, _, netns, _ uint32 } // struct bpf_link_info
	if err := info(link, unsafe.Pointer(&i), unsafe.Sizeof(i)); err != nil {
		return 0, 0, fmt.Errorf("ask about a link: %w", err)
	}
	if i.kind != ofNetns {
		return i.program, 0, nil
	}
	return i.program, i.netns, nil
}

// Load loads a program under the GPL.
func Load(kind, at uint32, name string, instructions []byte) (FD, error) {
	if len(instructions) == 0 {
		return -1, errors.New("a program without instructions")
	}
	license := []byte("GPL\x00")
	attr := struct {
		kind, count           uint32
		instructions, license unsafe.Pointer
		logLevel, logSize     uint32
		log                   unsafe.Pointer
		version, flags        uint32
		name                  [16]byte
		device, at            uint32
	}{
		kind: kind, count: uint32(len(instructions) / 8),
		instructions: unsafe.Pointer(&instructions[0]), license: unsafe.Pointer(&license[0]), at: at,
	}
	copy(attr.name[:15], name)
	fd, err := call(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return -1, fmt.Errorf("load program %s: %w", name, err)
	}
	return FD(fd), nil
}

// NewMap makes a map; flags as BPF_F_NO_PREALLOC.
func NewMap(kind, key, value, entries, flags uint32, name string) (FD, error) {
	attr := struct {
		kind, key, value, entries, flags, inner, node uint32
		name                                          [16]byte
	}{kind: kind, key: key, value: value, entries: entries, flags: flags}
	copy(attr.name[:15], name)
	fd, err := call(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return -1, fmt.Errorf("make map %s: %w", name, err)
	}
	return FD(fd), nil
}

type elemAttr struct {
	m, _       uint32
	key, value unsafe.Pointer
	flags      uint64
}

// Lookup reads the value of a key, which has the size of the map's.
func Lookup[K any](m FD, key K, value unsafe.Pointer) error {
	attr := elemAttr{m: uint32(m), key: unsafe.Pointer(&key), value: value}
	_, err := call(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// Update writes the value of a key; flags are BPF_ANY, BPF_NOEXIST or BPF_EXIST.
func Update[K any](m FD, key K, value unsafe.Pointer, flags uint64) error {
	attr := elemAttr{m: uint32(m), key: unsafe.Pointer(&key), value: value, flags: flags}
	_, err := call(unix.BPF_MAP_UPDATE_ELEM, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// Delete removes a key. fs.ErrNotExist: it is not there.
func Delete[K any](m FD, key K) error {
	attr := elemAttr{m: uint32(m), key: unsafe.Pointer(&key)}
	_, err := call(unix.BPF_MAP_DELETE_ELEM, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}
