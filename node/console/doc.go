// Package console keeps the last 60 KiB that a guest wrote to its console: a
// ring in the kernel, which no process of ours has to read.
//
// A guest's standard output and /dev/console are its /proc/sys/kernel/ns_last_pid,
// a file that everybody may open for writing. A BPF program on the guest's cgroup
// (BPF_PROG_TYPE_CGROUP_SYSCTL) is asked first about each write there: it copies
// what is written into its map, and answers in the kernel's place. So a write
// never blocks and never fails, whatever flags the file was opened with; nothing
// that a guest does makes the ring longer, shorter or other than what it wrote;
// and what is not asked for costs nothing. The ring lives as long as the cgroup,
// longer than the guest's processes.
//
// It is no terminal: isatty(3) says no, as for a pipe.
//
// Killed: there is nothing to clean up. Kernel: 5.18 (bpf_set_retval) with
// CONFIG_CHECKPOINT_RESTORE, CONFIG_CGROUP_BPF and CONFIG_SYSCTL, as distributions
// have; without, ErrUnsupported.
package console
