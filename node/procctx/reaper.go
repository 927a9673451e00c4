package procctx

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A guest whose own init is not run has reaper.c as process 1: a few hundred bytes of
// machine code, executed from memory, as no file of the host may be in a guest. The
// file is sealed and belongs to one guest: who opens /proc/1/exe there can neither
// change it nor reach another guest by it (CVE-2019-5736).

// openReaper returns a file in memory with the program.
func openReaper() (*os.File, error) {
	// MFD_EXEC: kernel 6.3 and later want to be told.
	fd, err := unix.MemfdCreate("init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("make process 1: %w: this host runs nothing from memory: sysctl vm.memfd_noexec=1", err)
	}
	if err != nil {
		return nil, fmt.Errorf("make process 1: %w", err)
	}
	f := os.NewFile(uintptr(fd), "init")
	_, err = f.Write(reaperProgram())
	if err == nil {
		err = f.Chmod(0o555)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make process 1: %w", err)
	}
	return f, nil
}

// reaperProgram returns an executable (elf(5)) of reaperCode: one segment that begins
// with the headers, and a stack that is not executable.
func reaperProgram() []byte {
	const (
		base, headers           = 0x400000, 64 + 2*56
		ptLoad, ptStack         = 1, 0x6474e551
		executable, write, read = 1, 2, 4
	)
	size := uint64(headers + len(reaperCode))
	b := make([]byte, 0, size)
	put := func(bytes int, values ...uint64) {
		for _, v := range values {
			for i := range bytes {
				b = append(b, byte(v>>(8*i)))
			}
		}
	}
	b = append(b, "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"...) // 64 bits, little-endian, version 1
	put(2, 2, reaperMachine)                                                    // ET_EXEC
	put(4, 1)
	put(8, base+headers, 64, 0) // entry, place of the program headers, no sections
	put(4, 0)
	put(2, 64, 56, 2, 0, 0, 0) // sizes and numbers of headers
	put(4, ptLoad, read|executable)
	put(8, 0, base, base, size, size, 0x10000)
	put(4, ptStack, read|write)
	put(8, 0, 0, 0, 0, 0, 16)
	return append(b, reaperCode...)
}
