// Package oneprocessor has Go use one processor from the beginning. A command that works
// on one guest is faster so: handing goroutines to threads that wake for them takes longer
// than they do. What works on several calls runtime.SetDefaultGOMAXPROCS.
//
// It is a package for the time at which that happens. Go initializes packages when those
// that they import are, in the order of their paths: this one is among the first. Giving up
// a processor later, when all sizes of objects have been allocated on it, takes 0.2 ms.
package oneprocessor

import "runtime"

func init() { runtime.GOMAXPROCS(1) }
