// Package tree computes the digest of a root filesystem, and packs it into the tar
// stream that carries it from one host to another.
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
// Modification times count, in whole seconds: programs depend on them (make, apt's
// caches, Python's .pyc files), so a tree with different times is a different tree.
// Fractions of a second do not count: most archives cannot hold them. The extended
// attributes user.*, security.capability and POSIX ACLs count and are carried; the
// others belong to the host's own policies (security.selinux) or would control
// overlayfs (trusted.overlay.redirect points a lookup elsewhere). The root directory
// itself is not an entry: it always belongs to root, with mode 0755. Hard links count:
// the first name in walk order is the file, the others are links to it. Sockets and
// device nodes cannot be in a tree: [Normalize] removes them from a new installation,
// since a guest gets its /dev at start.
//
// [Pack] writes a tree as tar in walk order; [Unpack] takes only that order
// back, hashing as the bytes pass, so that a stream is read once. [Extract]
// accepts tar archives of any origin. Both unpackers hold the root by descriptor and
// never resolve a path outside it (openat2, kernel 5.6). If they fail or are killed,
// they leave an incomplete tree, which the caller removes.
package tree
