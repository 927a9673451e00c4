// Package tree carries a root filesystem: its digest, and the tar stream that
// takes it from one host to another.
//
// The digest names a tree by what a guest can see of it. Every entry below the
// root gives one line of a manifest, in the order of a walk that takes each
// directory's names bytewise and a directory before what is in it:
//
//	kind path mode uid gid size mtime link sha256(content) [xattr value]…
//
// and the sha256 of the manifest is the ID. Equal trees have equal IDs, on any
// filesystem and any host.
//
// The time of modification counts, in whole seconds: programs decide by it
// (make, apt's caches, Python's .pyc files), so a tree with other times is
// another tree. Fractions do not: most archives cannot hold them. Of extended
// attributes count and travel user.*, security.capability and POSIX ACLs; the
// others belong to the host's own policies (security.selinux) or would talk to
// overlayfs (trusted.overlay.redirect points a lookup elsewhere). The root
// directory itself is no entry: it is always root's, mode 0755.
// Which names are one file (hard links) counts: the first name in walk order
// is the file, the others are links to it. Sockets and device nodes cannot be
// in a tree: [Normalize] takes them out of a fresh installation, since a guest
// gets its /dev at start.
//
// [Pack] writes a tree as tar in walk order; [Unpack] takes only that order
// back, hashing as the bytes pass, so that a stream is read once. [Extract]
// takes any tar of the world. Both unpackers hold the root by descriptor and
// never resolve a path outside it (openat2, kernel 5.6); what they leave when
// they fail or are killed is a part of a tree, which the caller removes.
package tree
