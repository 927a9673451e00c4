// Package exits keeps how and when the process 1 of each guest ended: its exit status
// or signal, or that the guest rebooted or powered itself off by reboot(2).
//
// The parent of a guest's process 1 is a vsnode that has long ended, so nobody waits
// for it. A BPF program at the tracepoint sched_process_exit does: if the process that
// ends is number 1 of its pid namespace, and the namespace is that of a watched guest,
// it writes what wait(2) would tell into a map with an entry for each guest, by the id of
// its cgroup. Of any other process it reads three words.
//
// The program is attached once per boot and pinned as one link,
// /sys/fs/bpf/vservers/exits; the map is found by it. Attaching is one step: a vsnode
// that is killed leaves all or nothing. If the link is removed, the guests that were
// watched by it are not any more, and the next start attaches another.
//
// It needs BTF, to find fields of the kernel. Without it [Watch] returns ErrUnsupported
// and [Look] nothing. Nothing here decides whether a guest runs.
package exits
