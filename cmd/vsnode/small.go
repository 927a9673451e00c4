package main

import (
	"runtime"
	"runtime/debug"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// workAlone is for a call that works on one guest: see package oneprocessor. The garbage
// collector begins at 32 MiB instead of 4: most such calls end before that, and one
// collection takes as long as a tenth of a guest's start. With 128 MiB in use it works as
// hard as it has to.
func workAlone() {
	debug.SetGCPercent(800)
	debug.SetMemoryLimit(128 << 20)
	linux.Alone = true
}

// useAllProcessors is for a call that works on several guests.
func useAllProcessors() {
	linux.Alone = false
	runtime.SetDefaultGOMAXPROCS()
}
