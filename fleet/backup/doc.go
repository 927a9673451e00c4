// Package backup writes and reads archives of guests. An archive is what vsnode sends of a
// guest's own files, a tar archive in one zstd frame that stock tar reads (tar --zstd -tf),
// and after it a zstd frame that all readers skip, with the [Head]: the guest's settings, the
// image that its files lie on, and the digest of the files.
//
// An archive is written beside its place, synced and renamed: it is complete or absent. A
// writer that is killed leaves a file whose name ends with ".part".
//
// Nothing here unpacks a file onto this machine: [Archive.File] writes one to a writer.
package backup
