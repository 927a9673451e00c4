package netctx

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

func addressOf(b []byte) uintptr             { return uintptr(unsafe.Pointer(&b[0])) }
func pointerTo(b []byte) unsafe.Pointer      { return unsafe.Pointer(&b[0]) }
func wordAt(b []byte, off uint32) *uint32    { return (*uint32)(unsafe.Pointer(&b[off])) }
func loadAt(b []byte, off uint32) uint32     { return atomic.LoadUint32(wordAt(b, off)) }
func storeAt(b []byte, off uint32, v uint32) { atomic.StoreUint32(wordAt(b, off), v) }

// Operations of io_uring (linux/io_uring.h).
const (
	uringConnect = 16
	uringSocket  = 45
	uringBind    = 56 // kernel 6.11
)

// uringCall performs one operation through io_uring: Args[0] is the operation; for a
// socket, Args[1] and Args[2] are its family and kind.
func uringCall(c call) (int, error) {
	var params [120]byte // struct io_uring_params
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, addressOf(params[:]), 0)
	if errno != 0 {
		return 0, errno
	}
	defer unix.Close(int(ring))
	sq := func(i int) uint32 { return binary.NativeEndian.Uint32(params[40+4*i:]) } // struct io_sqring_offsets
	cq := func(i int) uint32 { return binary.NativeEndian.Uint32(params[80+4*i:]) } // struct io_cqring_offsets
	sqRing, err := unix.Mmap(int(ring), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return 0, fmt.Errorf("map rings: %w", err)
	}
	defer unix.Munmap(sqRing)
	sqes, err := unix.Mmap(int(ring), 0x10000000, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return 0, fmt.Errorf("map entries: %w", err)
	}
	defer unix.Munmap(sqes)

	// struct io_uring_sqe: opcode 0, fd 4, off/addr2 8, addr 16, len 24.
	op := c.Args[0]
	sqes[0] = byte(op)
	var pin runtime.Pinner
	defer pin.Unpin()
	switch op {
	case uringSocket:
		binary.NativeEndian.PutUint32(sqes[4:], uint32(c.Args[1]))
		binary.NativeEndian.PutUint64(sqes[8:], uint64(c.Args[2]))
	default:
		sa := sockaddr(0, c.Addr)
		pin.Pin(&sa[0])
		binary.NativeEndian.PutUint32(sqes[4:], uint32(c.FD))
		binary.NativeEndian.PutUint64(sqes[8:], uint64(len(sa)))
		binary.NativeEndian.PutUint64(sqes[16:], uint64(addressOf(sa)))
	}
	storeAt(sqRing, sq(6), 0)                       // array[0]: entry 0
	storeAt(sqRing, sq(1), loadAt(sqRing, sq(1))+1) // tail
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, 1 /* IORING_ENTER_GETEVENTS */, 0, 0); errno != 0 {
		return 0, errno
	}
	head := loadAt(sqRing, cq(0))
	if head == loadAt(sqRing, cq(1)) {
		return 0, unix.ETIMEDOUT
	}
	cqe := cq(5) + 16*(head&(loadAt(sqRing, cq(2))))
	if res := int32(loadAt(sqRing, cqe+8)); res < 0 {
		return 0, unix.Errno(-res)
	} else {
		return int(res), nil
	}
}
