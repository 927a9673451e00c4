// Package builder makes root filesystems: each method of `vserver NAME build`
// fills an empty directory. internal/buildmethod has their arguments.
//
//	debootstrap  by the host's mmdebstrap or debootstrap
//	dnf, yum     by the host's dnf
//	skeleton     directories, and a command of the host
//	template     tar archives and directories, one over the other
//	rsync        a tree, by the host's rsync
//	clone        the root of a guest, or a directory
//	host         the root of this host
//	oci          an image in the OCI layout, by a reader of our own
//
// The result is a tree that node/images/tree accepts: it has no device nodes, and its
// root directory belongs to root. Every tree is adapted to run as several guests, and
// what a package manager installed is also cleaned for cloning (see adapt.go).
//
// The host's tools run as process 1 of their own pid namespace, in their own mount
// namespace: when vsnode ends, however it ends, they and all their children and
// mounts end with it. What they have written by then stays; the caller removes it.
//
// Kernel: 5.6 for openat2.
package builder
