// Package images keeps the reference installations of one host: built once,
// read-only, shared by all guests made from them, and carried to other hosts as
// a stream.
//
//	.images/<hex>/                    an image; <hex> is its ID without "sha256:"
//	.images/<hex>/manifest            its tree as data (package tree); the ID is its sha256
//	.images/<hex>/description.erofs   its tree for the kernel (package composefs), the lower layer of guests
//	.images/<hex>/description.digest  the description's fs-verity digest
//	.images/<hex>/objects             link to the contents of its files (package objects)
//	.images/<hex>/init                link to what /sbin/init of the tree leads to
//	.images/<hex>/<key>.json          a spec that it is built from (api.Image), by the spec's key
//	.images/<hex>/from-*.difference   the difference to another image, the base, once it was made (kept.go)
//	.images/<hex>/build.log           output of the build tools, on the host that built it
//	.images/<hex>/tree/               a plain tree, in place of the first five
//	.images/.tmp-<name>/              an image that is being made or removed
//	.images/.part-<hex>/              what has arrived of an image: manifest, contents (part.go)
//
// Images are plain trees where the kernel has no EROFS. Those that an older vsnode left
// are taken over by the next call that makes an image: their files become objects by hard
// links, and the manifest, which comes last, has later starts use the description. The
// tree is removed an hour later at the earliest, and not while a guest is on it.
//
// A trust domain has images and objects of its own, copied from these (domain.go):
//
//	.domains/NAME/.images, .domains/NAME/.store
//
// A host that has another image gets the difference to it (difference.go): the objects that
// it has become links in the directory that it arrives in, and count as if they had come. What
// has arrived stays there for a day if the rest does not come, and the next stream continues.
//
// An image under its final name is complete and on the disk: it is made under a
// .tmp name, synced, and renamed, and its objects were before. Two specs that give the
// same tree share one image with two records.
//
// A vsnode that works in a .tmp directory holds an flock on it. A second vsnode that
// wants the same image waits for that lock and finds the image. Directories whose
// lock is free were left by a killed vsnode; the next call that writes removes them.
// Objects of an image that was not completed are removed by the next Remove or Collect.
//
// .images and each image are mode 0700: their files belong to the host's root,
// and no user of the host may run a guest's setuid program (CVE-2021-41091).
package images
