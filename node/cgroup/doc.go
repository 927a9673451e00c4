// Package cgroup is cgroup v2 (cgroups(7)): where it is mounted, the cgroup of
// each guest, its limits, the processes in it and their end.
//
// A guest's cgroup is vservers/NAME below the mount. It belongs to the guest's
// root, who may divide it further; its limits stay the host's. "Running" is read
// from here: a guest runs while its cgroup is populated.
//
// Killed: what can be left is an empty cgroup, which the next Make removes.
//
// Kernel: 6.1. cgroup.kill (5.14) has no fallback. On a host whose controllers
// sit on cgroup v1 everything works but limits, which are refused with that reason.
//
// It never moves a process: guests' processes are born into their cgroup.
package cgroup
