// Package cgroup handles cgroup v2 (cgroups(7)): its mount, the cgroup of each guest,
// the guest's limits, and listing and killing its processes.
//
// A guest's cgroup is vservers/NAME below the mount or, where systemd runs the host,
// vservers.slice/vserver@NAME.service/guest. It belongs to the guest's
// root, who may divide it further; the limits belong to the host. It also defines
// "running": a guest runs while its cgroup is populated.
//
// Killed: an empty cgroup may be left behind, which the next Make removes.
//
// Kernel: 6.1. cgroup.kill (5.14) has no fallback. On a host whose controllers
// are on cgroup v1, everything works except limits, which are refused with that reason.
//
// It never moves a process of a guest: these are born into their cgroup.
package cgroup
