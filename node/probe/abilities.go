package probe

// What is lost without an ability, and how it is had.
const (
	NoGuests    = "no guest starts"
	noShared    = "guests with shared or own addresses do not start; nat guests do"
	noNAT       = "nat guests do not start; those with shared or own addresses do"
	newerKernel = "run a newer kernel, 6.1 at least"
)

// What every guest needs.
var (
	Kernel = &Ability{Name: "kernel", For: "everything below", Required: true, Probe: kernel, Lost: NoGuests, Cure: newerKernel}

	Cgroup2 = &Ability{Name: "cgroup v2", For: "holding a guest's processes together", Required: true, Probe: cgroup2, Lost: NoGuests,
		Cure: "boot with systemd.unified_cgroup_hierarchy=1, set rc_cgroup_mode=unified in /etc/rc.conf (OpenRC), or mount -t cgroup2 none /sys/fs/cgroup/unified"}

	CgroupKill = &Ability{Name: "cgroup.kill", For: "stopping a guest whole", Required: true, Probe: cgroupKill, Lost: NoGuests, Cure: newerKernel}

	CloneIntoCgroup = &Ability{Name: "clone into cgroup", For: "a guest's first process is born in its cgroup", Required: true,
		Probe: cloneIntoCgroup, Lost: NoGuests, Cure: newerKernel}

	UserNamespaces = &Ability{Name: "user namespaces", For: "a guest's root is nobody on the host", Required: true, Probe: userNamespaces,
		Lost: NoGuests, Cure: "sysctl -w user.max_user_namespaces=65536", Changes: true}

	MountAPI = &Ability{Name: "mount API", For: "mounts by descriptor, out of a guest's reach", Required: true, Probe: mountAPI,
		Lost: NoGuests, Cure: newerKernel}

	IdmappedMounts = &Ability{Name: "idmapped mounts", For: "images shared by guests with different ids", Required: true, Probe: idmappedMounts,
		Lost: NoGuests, Cure: "put /var/lib/vservers on ext4, xfs or btrfs"}

	Overlayfs = &Ability{Name: "overlayfs", For: "images shared by guests that write", Required: true, Probe: overlay, Lost: NoGuests,
		Cure: "put /var/lib/vservers on ext4, xfs or btrfs; modprobe overlay", Modules: []string{"overlay"}}

	IdmappedLayers = &Ability{Name: "idmapped layers", For: "both of them together", Required: true, Probe: idmappedOverlay, Lost: NoGuests,
		Cure: newerKernel, Modules: []string{"overlay"}}

	Descriptions = &Ability{Name: "EROFS", For: "images that share their equal files, on disk and in memory", Probe: descriptions,
		Lost: "images are kept as plain trees, each with files of its own", Cure: "modprobe erofs loop; or run a kernel with CONFIG_EROFS_FS",
		Modules: []string{"erofs", "loop"}}

	SetnsByPidfd = &Ability{Name: "setns by pidfd", For: "entering a guest", Required: true, Probe: setnsPidfd, Lost: NoGuests, Cure: newerKernel}

	SeccompFilters = &Ability{Name: "seccomp filters", For: "keeping guests from kernel parts that they do not need", Required: true, Probe: seccomp,
		Lost: NoGuests, Cure: "run a kernel with CONFIG_SECCOMP_FILTER"}
)

// Required returns the abilities without which no guest starts, those first on
// which others build.
func Required() []*Ability {
	return []*Ability{Kernel, Cgroup2, CgroupKill, CloneIntoCgroup, UserNamespaces, MountAPI, IdmappedMounts, Overlayfs, IdmappedLayers,
		SetnsByPidfd, SeccompFilters}
}

// What some guests need.
var (
	Controllers = &Ability{Name: "cgroup controllers", For: "limits of memory and processors, and of processes on a running guest",
		Probe: controllers, Lost: "guests with limits of memory or processors do not start",
		Cure: "boot with cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1", Changes: true}

	NestedUserNamespaces = &Ability{Name: "nested user namespaces", For: "programs in guests that make their own: bwrap, browsers, podman",
		Probe: nestedUserNamespaces, Lost: "such programs do not run in guests", Changes: true}

	CgroupBPF = &Ability{Name: "cgroup BPF", For: "guests that share the host's network", Probe: cgroupBPF, Lost: noShared,
		Cure: "run a kernel with CONFIG_CGROUP_BPF"}

	BPFFS = &Ability{Name: "bpffs", For: "keeping loaded BPF programs between two calls", Probe: bpffs, Lost: noShared,
		Cure: "run a kernel with CONFIG_BPF_SYSCALL", Changes: true}

	AbstractSockets = &Ability{Name: "abstract socket guard", For: "keeping guests that share the host's network from its abstract Unix sockets",
		Probe: abstractSockets, Lost: noShared,
		Cure: "run kernel 6.12 with Landlock, 6.7 with cgroup BPF, or any with bpf among its security modules (lsm=…,bpf); or use network mode nat"}

	SocketDiag = &Ability{Name: "socket lists", For: "finding programs of the host that have the ports of guests which share its network", Probe: socketDiag,
		Lost: noShared, Cure: "modprobe -a tcp_diag udp_diag; or run a kernel with CONFIG_INET_DIAG and CONFIG_INET_UDP_DIAG",
		Modules: []string{"tcp_diag", "udp_diag"}}

	NFTables = &Ability{Name: "nftables", For: "nat guests", Probe: nfTables, Lost: noNAT, Cure: "modprobe nf_tables", Modules: natModules, Changes: true}

	Veth = &Ability{Name: "veth", For: "nat guests", Probe: vethPair, Lost: noNAT, Cure: "modprobe veth", Modules: []string{"veth"}}

	TimeNamespaces = &Ability{Name: "time namespaces", For: "an uptime of each guest's own", Probe: timeNamespaces,
		Lost: "guests show the host's uptime", Cure: "run kernel 6.3 or newer with CONFIG_TIME_NS"}

	Ping = &Ability{Name: "ping", For: "ping in guests that share the host's network", Probe: pingRange,
		Lost: "ping says that it is not permitted there", Cure: `sysctl -w net.ipv4.ping_group_range="0 2147483647"`, Changes: true}

	Debootstrap = &Ability{Name: "debootstrap", For: "building Debian and Ubuntu images here", Probe: program("mmdebstrap", "debootstrap"),
		Lost: "images of this kind are built on another host", Cure: "apt-get install mmdebstrap", Changes: true}
)
