package linux

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// OnOwnThread runs f on a thread that ends afterwards, so that f may change attributes
// of the thread: its namespaces, capabilities or IDs (setns(2), capabilities(7),
// credentials(7)). It is never the first thread of the process: that one cannot end,
// and /proc/self would show what f changed.
func OnOwnThread[T any](f func() (T, error)) (T, error) {
	type result struct {
		val T
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine holds the first thread, another runs elsewhere.
			val, err := OnOwnThread(f)
			runtime.UnlockOSThread()
			done <- result{val, err}
			return
		}
		val, err := f()
		done <- result{val, err}
	}()
	r := <-done
	return r.val, r.err
}
