// Package console keeps the last 60 KiB that a guest wrote to its console, in a
// ring buffer in the kernel that no process of ours has to drain.
//
// A guest's standard output and /dev/console are its /proc/sys/kernel/ns_last_pid,
// a file that everybody may open for writing. A BPF program on the guest's cgroup
// (BPF_PROG_TYPE_CGROUP_SYSCTL) runs before each write there: it copies the data
// into its map and returns in the kernel's place. So a write never blocks and never
// fails, whatever flags the file was opened with; a guest cannot make the ring
// longer, shorter or different from what it wrote; and a console that nobody reads
// costs nothing. The ring lives as long as the cgroup, longer than the guest's
// processes.
//
// The console is not a terminal: isatty(3) returns false, as for a pipe.
//
// Killed: there is nothing to clean up. Kernel: 5.18 (bpf_set_retval) with
// CONFIG_CHECKPOINT_RESTORE, CONFIG_CGROUP_BPF and CONFIG_SYSCTL, as distributions
// have; otherwise ErrUnsupported is returned.
package console
