// Package push gets the right vsnode onto a host and starts it.
//
// vsfleet carries a vsnode for each architecture, compressed, known by the hash
// of what it unpacks to. The first command on a host is a line of shell that
// runs the vsnode of that hash in /var/lib/vsnode, if it exists and nobody but root
// could have changed it: then no other command is needed. Otherwise it prints the
// host's machine type, user and decompressor; a second command receives vsnode,
// compressed as the host can unpack it, and a third starts it.
//
// A vsnode on a host is complete or absent: it is unpacked beside its place,
// compared with its hash, written to the disk and renamed. Two controllers at
// once, or one that is killed halfway, leave a file that the next push after
// an hour removes. Vsnodes of other versions go when they are 30 days old and
// nothing runs them.
//
// A [Vsnode] is one `vsnode serve` or `vsnode stream`. Its output begins with
// [api.Preamble]; what a login shell printed first is skipped. Package remote
// exchanges requests and answers with it.
package push
