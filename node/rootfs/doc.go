// Package rootfs compares and writes files below a root filesystem that somebody
// else can write to: a guest's, or an image's while it is built.
//
// Paths are resolved by openat2(2) with RESOLVE_IN_ROOT, without magic links and
// without crossing mounts (kernel 5.6): a link cannot lead out, and a filesystem
// that a guest serves itself (FUSE) cannot make us wait. Pipes and devices are never
// opened.
//
// A file is written under a temporary name beside its place, synced and renamed. A
// call that is killed leaves the old file or the new one, and at most a
// ".NAME.vsfleet~" beside it, which the next call removes.
package rootfs
