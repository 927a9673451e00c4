package check

import (
	"context"

	"github.com/vsfleet/vsfleet/node/probe"
)

// table returns the rows in the order they are printed: the abilities of this host, and
// conditions that get in guests' way.
func table(ctx context.Context, find findListeners) []*probe.Ability {
	ask := func(f func(context.Context) probe.Answer) func(*probe.System) probe.Answer {
		return func(*probe.System) probe.Answer { return f(ctx) }
	}
	return []*probe.Ability{
		probe.Kernel, probe.Cgroup2, probe.Controllers, probe.CgroupKill, probe.CloneIntoCgroup,
		probe.UserNamespaces, probe.NestedUserNamespaces, probe.MountAPI, probe.IdmappedMounts, probe.Overlayfs, probe.IdmappedLayers,
		probe.Descriptions, probe.SetnsByPidfd, probe.SeccompFilters,
		probe.CgroupBPF, probe.BPFFS, probe.AbstractSockets, probe.SocketDiag, probe.NFTables, probe.Veth,
		condition("forwarding", "packets of nat guests on their way through the host", ask(forwarding),
			"nat guests reach, or are reached by, nobody outside", ""),
		probe.Ping, probe.TimeNamespaces,
		condition("ports for guests", "no listener of the host on all addresses",
			ask(func(ctx context.Context) probe.Answer { return wildcardListeners(ctx, find) }),
			"guests on an address of this host cannot have these ports: who connects reaches the host", ""),
		condition("firewall", "connections from outside to guests that share the host's network", ask(firewall),
			"ports that no rule there accepts are dead; a guest's start names its own", "accept them there"),
		condition("ports of guests", "guests in mode shared have the ports that their programs ask for", ask(refusedPorts),
			"these programs do not serve there",
			"add the ports to the guest's `ports`; programs that choose from a range can be told which (vsftpd: pasv_min_port and pasv_max_port)"),
		condition("ids of guests", "ids of the host from context × 65536 on", idRanges,
			"these users and machines of the host may become the guests' users",
			"choose other contexts (those from 28672 to 32765 are free of systemd's), or change /etc/subuid and /etc/subgid"),
		condition("room for many guests", "processes and terminals for all guests together, inotify instances for each", kernelLimits,
			"with many guests, or many users of one, programs run into them", ""),
		probe.Debootstrap,
		condition("disk limits", "bounds of the space and the files of each guest", diskLimits,
			"guests with limits of disk or inodes do not start", ""),
		condition("free space", "images and what guests write", freeSpace, "builds fail half-way, and are undone",
			"make room below /var/lib/vservers"),
	}
}

// condition returns a row for a condition that may change at any time.
func condition(name, use string, look func(*probe.System) probe.Answer, lost, cure string) *probe.Ability {
	return &probe.Ability{Name: name, For: use, Probe: look, Lost: lost, Cure: cure, Changes: true}
}
