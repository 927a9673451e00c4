// Package objects keeps the contents of files: each content once, whatever the number of
// images, guests, names, owners, modes and times that files with it have.
//
//	.store/ab/cdef…   an object: its name is the sha256 of its content, two digits and 62
//	.store/ab/.new-*  one that is copied in from another filesystem
//
// The directory is a base directory as composefs has it: a layer of overlayfs in which
// descriptions of trees (node/images/composefs) find the contents of their files. Nothing
// but the directories 00 to ff may be in it: where it is an ordinary layer, a description
// hides these only.
//
// An object under its name is complete: [Store.Take] renames files whose content was
// synced and hashed by the caller. An object belongs to the host's root, all may read it, and
// only root reaches it. It is sealed by fs-verity where the filesystem has that. An
// object that is found damaged when the same content arrives is replaced; guests that have it
// open keep the old one.
//
// Whoever puts objects in holds the store's lock with others ([Store.Share]) until the
// manifest that names them is in its place. Who removes objects holds it alone
// ([Store.Alone]). The kernel releases both when a process is killed, and what a killed
// one put in is removed by the next [Store.Sweep].
package objects
