// Package images keeps the reference installations of one host: built once,
// read-only, shared by all guests made from them, and carried to other hosts as
// a stream.
//
//	.images/<hex>/            an image; <hex> is its ID without "sha256:"
//	.images/<hex>/tree/       its root filesystem, the lower layer of guests
//	.images/<hex>/<key>.json  a spec that it is built from (api.Image), by the spec's key
//	.images/<hex>/build.log   output of the build tools, on the host that built it
//	.images/.tmp-<name>/      an image that is being made or removed
//
// An image under its final name is complete and on the disk: it is made under a
// .tmp name, synced, and renamed. Two specs that give the same tree share one image
// with two records.
//
// A vsnode that works in a .tmp directory holds an flock on it. A second vsnode that
// wants the same image waits for that lock and finds the image. Directories whose
// lock is free were left by a killed vsnode; the next call that writes removes them.
//
// .images and each image are mode 0700: their files belong to the host's root,
// and no user of the host may run a guest's setuid program (CVE-2021-41091).
package images
