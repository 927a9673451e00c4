// Package quota limits the disk space and the files of a guest by project quotas of
// the filesystem (ext4, xfs): all that lies below a guest's directories carries a
// project id, which the kernel counts and bounds, and df inside shows the bound.
//
// The project id of a guest is the host's id of its root, context × 65536: no table
// has to be kept, and two guests of a host never share one. New files take it from
// their directory. A guest's root cannot change it: the kernel allows that from the
// initial user namespace alone, and quotactl is refused to guests.
//
// It works on a stopped guest's files, by descriptor and without following links. A
// killed [Mark] leaves a note on the top directory, and the next one goes on.
//
// Kernel: quotactl_fd (5.14). Symbolic links, devices and the like have no descriptor
// to set a project on (before 6.17): they are made anew, which only a stopped guest
// may see.
//
// It never turns a filesystem's quotas on: [Able] returns what an administrator has to do.
package quota
