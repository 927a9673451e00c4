// Package lab makes a practice fleet of hosts on the machine you sit at, and
// takes it away again.
//
// To the controller a lab host looks like a rented one: an address, an OpenSSH
// server with host keys of its own, and root. It has its own network, mount,
// pid, uts, ipc and cgroup namespaces and no user namespace, because its root
// must be able to do what a real root can. That also means that a lab host is
// no protection against its own root: do not give a lab to anybody to whom you
// would not give the machine. Lab hosts see the machine's root filesystem as it is
// mounted at /, without what is mounted below it, and write to a layer of
// their own.
//
// # What a host is made of
//
//	/                    overlayfs: the machine's / below, the host's own layer above
//	/var/lib/vservers    real directories, bound from the lab's directory
//	/var/lib/vsnode
//	/etc/vservers
//	/run /tmp /dev       tmpfs, /dev with the nodes that guests and debootstrap need
//	/proc /sys           of the host's own pid and network namespaces
//	/sys/fs/cgroup       cgroup v2, rooted at the host's own cgroup
//	/sys/fs/bpf          a bpf filesystem of its own
//
// Only the three directories above are real, not the whole of /var/lib:
// overlayfs cannot keep the upper layer of another overlayfs, nor can it be
// mounted with translated ids, so images and guests need a real filesystem;
// dpkg's database and everything else in /var/lib must go on describing the
// /usr that the host sees, and is fine copied on write.
//
// The lab's own directory, /root, /home and the machine's SSH host keys are
// hidden: a new host has no keys or tokens of yours, and a mistaken test must
// not be able to use them.
//
// A tiny init, this program itself started again, is process 1. It starts
// sshd, starts it again when it ends, and reaps. When it dies the kernel ends
// everything in the host, guests included, and with the last process go its
// mounts and its network. At each start the lab writes the host's name,
// addresses, keys and sshd configuration anew; all else in the host stays as
// it was, as over a reboot.
//
// # Guarantees
//
// The lab mounts nothing in the machine's own mount namespace. Files are
// removed by descriptor and never across a mount, so that nothing mounted
// below the lab by mistake can be emptied by Down.
//
// Up and Down may be killed at any point and called again, in either order,
// also after a reboot. What belongs to a lab is found by name, never by a
// remembered pid: the cgroup vsfleet-NAME holds all its processes and those
// of its guests, the links vsf-NAME and vsf-NAME-N and the nftables table
// vsfleet-NAME its network, and DIR its files. What is shared by all labs of a
// machine, the value that net.ipv4.ip_forward had before the first one, is
// kept in /run/vsfleet-lab until the last one goes.
//
// # Edges
//
// Kernel 6.1 with cgroup v2 mounted somewhere; root; OpenSSH's server
// installed. DIR must not lie on an overlayfs. Where / itself is an overlayfs,
// as in most containers, the kernel allows one more on top, so lab hosts work
// and so do their guests, as long as DIR is on a real filesystem. What the
// machine mounts below /, a /usr or /var of its own for example, is not seen
// in a host. A firewall of the machine which drops forwarded packets, such as
// Docker's, also drops those of the lab.
//
// Programs which call Up must hand over to InitMain when they are started as a
// host's init; see InitMain.
package lab
