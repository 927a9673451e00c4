// Package versions keeps which versions of its images a fleet has had.
//
// They stand in a file beside the inventory's images, images.lock, which belongs in the
// same repository: it decides which bits the hosts get. The newest version of an image that is
// not held is the current one. An update adds a version; a rollback holds the current one,
// so that the one before is current again; and what is held stays so until somebody
// releases it. An inventory without the file works as if each image had one version.
//
// # Why not on the hosts
//
// A version is an image's ID, a digest. A host can be asked for the image with that ID, but
// not which ID is right: it could then give all others an image of its own.
//
// # Guarantees
//
// [Change] reads, changes and replaces the file under a lock of its directory (flock(2)).
// After a kill the old file is there or the new one. What the file does not say clearly is
// an error with its line: unknown keys, versions twice, an ID that is no digest.
package versions
