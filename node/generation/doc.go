// Package generation keeps how guests were before a run changed them.
//
// A generation is a directory NAME/RUN in the store. It is named for the run before
// whose changes it was kept, and consists of
//
//	generation.json  [Generation]: who changes the guest and why, whether it ran, and
//	                 which files the run is going to overwrite
//	config/          the guest's configuration directory
//	files/DIGEST     what these files hold
//
// The record may name a copy of all of the guest's own files, which is beside these.
//
// Each part is on the disk, complete, before the guest is changed in what the part
// protects; a part that a killed call left incomplete is not one, and is made anew. A
// run of which only generation.json is there has started or stopped the guest.
//
// # Edges
//
// The caller holds the guest's lock. This package opens nothing of a guest: the caller
// reads and writes its files, through package rootfs. All that it keeps may be secret,
// so the store is root's alone (0700). It is not below /etc, where etckeeper and
// backups of configurations would take it.
package generation
