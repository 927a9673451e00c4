package main

import (
	"runtime"
	"runtime/debug"
)

// startSmall tunes Go for a call that works on one guest and ends. The garbage collector
// begins at 32 MiB instead of 4: most calls end before that, and one collection takes as
// long as a tenth of a guest's start. With 128 MiB in use it works as hard as it has to.
// Goroutines run on one processor: handing them to threads that wake for them takes
// longer than they do.
func startSmall() {
	debug.SetGCPercent(800)
	debug.SetMemoryLimit(128 << 20)
	runtime.GOMAXPROCS(1)
}

// useAllProcessors is for a call that works on several guests.
func useAllProcessors() { runtime.GOMAXPROCS(runtime.NumCPU()) }
