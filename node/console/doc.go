// Package console keeps the last 50 KiB that a guest wrote to its console, in a
// ring buffer in the kernel that no process of ours has to drain.
//
// A guest's standard output and /dev/console are its /proc/sys/kernel/ns_last_pid,
// a file that everybody may open for writing. A BPF program on the guest's cgroup
// (BPF_PROG_TYPE_CGROUP_SYSCTL) runs before each write there: it copies the data
// into a map and returns in the kernel's place. So a write never blocks and never
// fails, whatever flags the file was opened with; a guest cannot make the ring
// longer, shorter or different from what it wrote; and a console that nobody reads
// costs nothing.
//
// All guests share the program, which is pinned, and its maps. How much a guest has
// written is in a storage of its cgroup; the ring consists of parts that the program
// makes when they are first written to. So a guest that writes nothing needs no memory
// for it. If there is none, what would have been in a part is lost.
//
// The console is not a terminal: isatty(3) returns false, as for a pipe.
//
// Killed: the ring stays until Forget, which works without the cgroup too. Kernel: 5.18
// (bpf_set_retval) with CONFIG_CHECKPOINT_RESTORE, CONFIG_CGROUP_BPF and CONFIG_SYSCTL,
// as distributions have; otherwise ErrUnsupported is returned.
package console
