// Package composefs writes the description of a root filesystem: a small EROFS image
// that has every name, owner, mode, time and extended attribute of a tree, but of its
// files no data. Where the data are, overlayfs is told by the attribute
// trusted.overlay.redirect: in a directory of objects, which many images share.
//
// The images are those of composefs (github.com/composefs/composefs), bit by bit:
// mkcomposefs makes the same of the same tree, and composefs-info reads them. So what
// [Tree.Write] returns, the fs-verity digest of the image, can be computed by other
// tools.
//
// # The format
//
// The facts are from composefs' lcfs-writer-erofs.c and mkcomposefs.c (ec2573a), and
// from the kernel's fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst.
//
//	0      composefs' header: magic, version of the header, flags, version of the format
//	1024   EROFS' superblock
//	1152   inodes, each followed by its extended attributes and its inline data
//	       shared extended attributes
//	       blocks: directories, files and symbolic links that do not fit after their inodes
//
// Inodes come breadth first, directories sorted bytewise, and begin at multiples of 32
// bytes; EROFS counts in those, so the root has the number 36. Before an inode there is a
// gap where its inline data would cross the border of a block. A directory's last block
// and a file's last bytes are inline up to half a block. The oldest time of the tree is in
// the superblock: inodes that have it, and whose owner and size are small, take 32 bytes,
// others 64. Attributes that more than one inode has are written once.
//
// A file's data are holes: a list of chunks that are nowhere, as few as its size allows.
// Files can have their data in the description as well ([Node.Content], up to 5000
// bytes); mkcomposefs does that up to 64.
//
// The root is opaque, and has whiteouts 00 to ff: they hide the objects' directories
// where the directory of objects is an ordinary layer, below the description. Attributes
// of a tree that overlayfs would obey are renamed trusted.overlay.overlay.*, and overlayfs
// shows them under their own names again; whiteouts of a tree become empty files with
// attributes that say so. If there are such whiteouts, the format's version is 1, otherwise
// 0, as with mkcomposefs.
//
// # Mounting
//
// [Mount] gives a mount of a description alone, whose files are holes of the right size. It
// is the upper one of the layers that an overlay with metacopy=on reads:
//
//	lowerdir+=DESCRIPTION,datadir+=OBJECTS   from Linux 6.8 on (data-only layers: 6.5)
//	lowerdir=DESCRIPTION:OBJECTS             on all; 00 to ff of the objects are hidden by
//	                                         the description's whiteouts
//
// Linux mounts a file with EROFS itself from 6.12 on (CONFIG_EROFS_FS_BACKED_BY_FILE);
// before, it answers ENOTBLK, and a loop device takes the file. EROFS mounts can be idmapped
// since 5.19. In the second form the directory of objects has nothing but directories
// of two hexadecimal digits: any other name would appear in the root. Attributes
// trusted.overlay.* of a tree are shown since 6.7; before they are hidden, and obeyed by no
// kernel.
//
// # Guarantees
//
// A [Tree] takes nothing that cannot be described: names, targets, attributes and sizes
// are checked when an entry is added, since trees come from other hosts, as data. Equal
// trees give equal images. Writing needs no seeking. A tree of 1,000,000 files takes 300
// MB, its writing 100 MB more and 1.5 s; a Debian of 17,000 entries has a description of 3.7
// MB. If Write fails or is killed there is a part of an image, which the caller removes.
//
// # Edges
//
// Hard links come after their target. Owners and groups may be above 65535, times before
// 1970; device numbers have 32 bits. Of an empty file, [Verity] has the kernel's digest, and
// composefs-info another one.
//
// What this package never does: read images (to compare one with a tree, write the tree
// again), read or write objects, or follow paths of the host.
package composefs
