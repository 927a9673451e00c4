// Package signals delivers signals to this process, as package os/signal does, for
// commands that are over in milliseconds: os/signal makes two threads, and changes threads
// twice for each signal that it is to deliver, which takes as long as a tenth of an exec.
//
// The handler writes the signal's number to a pipe, and one goroutine reads them there. It
// takes the place of Go's own, which would end the process: the signals that are given to
// Notify must not be given to os/signal. More than a pipe holds are lost, as those are that
// os/signal finds no room for.
package signals

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	pipe uintptr // its end for the handler

	mu        sync.Mutex
	receivers []receiver
)

type receiver struct {
	signals []unix.Signal
	f       func(unix.Signal)
}

// Notify has f called for each of the signals that comes, in place of what it would do to
// the process. f must not block.
func Notify(f func(unix.Signal), signals ...unix.Signal) error {
	mu.Lock()
	defer mu.Unlock()
	if pipe == 0 {
		if err := open(); err != nil {
			return err
		}
	}
	receivers = append(receivers, receiver{signals, f})
	for _, sig := range signals {
		if err := handle(sig); err != nil {
			return err
		}
	}
	return nil
}

func open() error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("make a pipe for signals: %w", err)
	}
	pipe = uintptr(ends[1])
	go deliver(os.NewFile(uintptr(ends[0]), "signals"))
	return nil
}

// deliver calls the receivers of the signals that the handler has written.
func deliver(from *os.File) {
	for buf := make([]byte, 64); ; {
		n, err := from.Read(buf)
		if err != nil {
			return // the end of the process
		}
		for _, number := range buf[:n] {
			mu.Lock()
			to := receivers
			mu.Unlock()
			for _, r := range to {
				for _, sig := range r.signals {
					if sig == unix.Signal(number) {
						r.f(sig)
					}
				}
			}
		}
	}
}

// sigaction is the kernel's struct of that name, on amd64 and arm64.
type sigaction struct{ handler, flags, restorer, mask uintptr }

const (
	onStack  = 0x08000000 // the signal stack that Go gives each thread
	restart  = 0x10000000
	restorer = 0x04000000
)

// handle sets the handler. All signals are blocked in it.
func handle(sig unix.Signal) error {
	a := &sigaction{flags: onStack | restart, mask: ^uintptr(0)}
	if a.handler, a.restorer = addresses(); a.restorer != 0 {
		a.flags |= restorer
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(a)), 0, unsafe.Sizeof(a.mask), 0, 0); errno != 0 {
		return fmt.Errorf("handle signal %d: %w", sig, errno)
	}
	return nil
}

// addresses returns the handler, and what the kernel has it return to; 0: it knows itself.
func addresses() (handler, restorer uintptr)
