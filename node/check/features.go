package check

// feature is a row of the table.
type feature struct {
	name     string
	use      string
	required bool // no guest starts without it
	probe    func(*System) finding
	lost     string
	cure     string
}

const (
	newerKernel = "run a newer kernel, 6.1 at least"
	noShared    = "guests with shared or own addresses do not start; nat guests do"
	noNAT       = "nat guests do not start; those with shared or own addresses do"
	noGuests    = "no guest starts"
)

func features() []feature {
	return []feature{
		{"kernel", "everything below", true, kernel, noGuests, newerKernel},
		{"cgroup v2", "holding a guest's processes together", true, cgroup2, noGuests,
			"boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup/unified"},
		{"cgroup controllers", "limits of memory and processors, and of processes on a running guest", false, controllers,
			"guests with limits of memory or processors do not start",
			"boot with cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1"},
		{"cgroup.kill", "stopping a guest whole", true, cgroupKill, noGuests, newerKernel},
		{"clone into cgroup", "a guest's first process is born in its cgroup", true, cloneIntoCgroup, noGuests, newerKernel},
		{"user namespaces", "a guest's root is nobody on the host", true, userNamespaces, noGuests,
			"sysctl -w user.max_user_namespaces=65536"},
		{"nested user namespaces", "programs in guests that make their own: bwrap, browsers, podman", false, nestedUserNamespaces,
			"such programs do not run in guests", ""},
		{"mount API", "mounts by descriptor, out of a guest's reach", true, mountAPI, noGuests, newerKernel},
		{"idmapped mounts", "images shared by guests with different ids", true, idmappedMounts, noGuests,
			"put /var/lib/vservers on ext4, xfs or btrfs"},
		{"overlayfs", "images shared by guests that write", true, overlay, noGuests,
			"put /var/lib/vservers on ext4, xfs or btrfs; modprobe overlay"},
		{"idmapped layers", "both of them together", true, idmappedOverlay, noGuests, newerKernel},
		{"setns by pidfd", "entering a guest", true, setnsPidfd, noGuests, newerKernel},
		{"seccomp filters", "keeping guests from kernel parts that they do not need", true, seccomp, noGuests,
			"run a kernel with CONFIG_SECCOMP_FILTER"},
		{"cgroup BPF", "guests that share the host's network", false, cgroupBPF, noShared,
			"run a kernel with CONFIG_CGROUP_BPF"},
		{"bpffs", "keeping loaded BPF programs between two calls", false, bpffs, noShared,
			"run a kernel with CONFIG_BPF_SYSCALL"},
		{"abstract socket guard", "keeping guests that share the host's network from its abstract Unix sockets", false, abstractSockets,
			noShared, "run kernel 6.12 with Landlock, 6.7 with cgroup BPF, or any with bpf among its security modules (lsm=…,bpf); or use network mode nat"},
		{"nftables", "nat guests", false, nfTables, noNAT, "modprobe nf_tables"},
		{"veth", "nat guests", false, vethPair, noNAT, "modprobe veth"},
		{"forwarding", "packets of nat guests on their way through the host", false, forwarding, "nat guests reach, or are reached by, nobody outside", ""},
		{"ping", "ping in guests that share the host's network", false, pingRange, "ping says that it is not permitted there",
			`sysctl -w net.ipv4.ping_group_range="0 2147483647"`},
		{"ports for guests", "no listener of the host on all addresses", false, wildcardListeners,
			"guests on an address of this host cannot have these ports: who connects reaches the host", ""},
		{"firewall", "connections from outside to guests that share the host's network", false, firewall,
			"ports that no rule there accepts are dead; a guest's start names its own", "accept them there"},
		{"ports of guests", "guests in mode shared have the ports that their programs ask for", false, refusedPorts,
			"these programs do not serve there", "add the ports to the guest's `ports`; programs that choose from a range can be told which (vsftpd: pasv_min_port and pasv_max_port)"},
		{"ids of guests", "ids of the host from context × 65536 on", false, idRanges,
			"these users and machines of the host may become the guests' users", "choose other contexts (those from 28672 to 32765 are free of systemd's), or change /etc/subuid and /etc/subgid"},
		{"room for many guests", "processes and terminals for all guests together, inotify instances for each", false, kernelLimits, "with many guests, or many users of one, programs run into them", ""},
		{"debootstrap", "building Debian and Ubuntu images here", false, tool("mmdebstrap", "debootstrap"),
			"images of this kind are built on another host", "apt-get install mmdebstrap"},
		{"free space", "images and what guests write", false, freeSpace, "builds fail half-way, and are undone",
			"make room below /var/lib/vservers"},
	}
}
