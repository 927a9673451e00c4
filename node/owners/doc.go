// Package owners gives the files of an old guest the owners that they have inside it,
// and to that guest alone: Linux-VServer's kernel kept a guest's tag in the upper bits
// of owners, other tools shift all ids of a tree, and unified guests share files by
// hard links that its kernel broke when they were written to.
//
// Look reads a tree and changes nothing; Survey.Apply changes it. Apply can be killed
// at any point and called again with the same Survey, which the caller keeps on disk:
// what has been done is recognised by the owner that a file has. chown(2) takes setuid
// bits and capabilities away, so a Survey lists the files that have them.
//
// The tree belongs to a guest that does not run. Every file is named by a descriptor of
// its directory, links are not followed, and other filesystems mounted in the tree are
// left alone.
package owners
