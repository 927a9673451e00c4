// Package linux holds code about Linux that is not specific to this project: each file
// is one concept of the kernel that several packages need, and names the man page that
// describes it. It knows nothing of guests, hosts or fleets.
//
// Kernel: 6.1. Nothing here has a fallback for an older one.
package linux
