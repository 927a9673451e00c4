// Package builder makes root filesystems: each method of `vserver NAME build`
// fills an empty directory.
//
//	debootstrap  -d DIST [-m MIRROR] [-s SCRIPT] [-- OPTIONS]   by the host's mmdebstrap or debootstrap
//	template     -t FILE [-t FILE]…                             from tar archives on the host
//
// What comes out is a tree as node/images/tree has it: no device nodes, a root
// directory of root's. A debootstrap installation is also made fit to be
// cloned and to run as a guest (see adapt.go); a template is taken as it is.
//
// The host's tools run as process 1 of a process namespace of their own, in a
// mount namespace of their own: when vsnode ends, however it ends, they and all
// their children and mounts end with it. What they have written by then stays;
// the caller removes it. Kernel: 5.6 for openat2.
package builder
