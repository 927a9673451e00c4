// Package backup keeps backups of guests in a directory of this machine or of a host that is
// reached over SSH.
//
//	vsfleet-backups               marks the directory
//	HOST/GUEST/TIME.backup        a backup: its [Head], and the list of its files
//	.objects/ab/cdef…             a content, compressed (zstd): its name is the sha256 of it
//	.new/                         what is being written
//	.locks/                       who uses the directory now
//
// A content is kept once, whichever guests and backups have it. Objects and backups never
// change once they have their names, so any program that copies files can take the directory
// elsewhere.
//
// A list is a tar archive without the contents, in one zstd frame, with an object's name in the
// PAX record VSFLEET.object; after it follows a zstd frame that all readers skip, with the head
// and its digest. The list has the digest that the head says. Whatever is read is compared
// with its digest: damage is found, and never restored.
//
// Everything is written in .new, synced and renamed; a backup appears when all its objects are
// there. A vsfleet that is killed leaves files in .new, and objects that no backup has, to the
// next [Store.Prune], and a lock, which counts for half an hour. Prune and all others exclude
// each other by files in .locks: each writes its own, then looks for others, so at least one
// of two sees the other. Their times are those of the directory's machine.
//
// What a host sends is not believed: it cannot choose an object's name, nor fill this machine's
// disk or memory.
//
// Nothing here unpacks a file onto this machine.
package backup
