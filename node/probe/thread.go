package probe

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs f on a thread that ends afterwards, with the namespaces that
// f gave it. The process's first thread is never taken: it would not end.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: so the thread ends here
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		err := onOwnThread(f) // runs elsewhere, as we hold the first thread
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
