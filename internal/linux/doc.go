// Package linux holds what is Linux and not ours: each file is one concept of
// the kernel that several packages need, with the man page that describes it.
// It knows nothing of guests, hosts or fleets.
//
// Kernel: 6.1. Nothing here has a fallback for an older one.
package linux
