// Package stat counts what a host and its guests use, and prints it as
// Linux-VServer's vserver-stat did.
//
// A guest's processes are those of its cgroup and of every cgroup below it.
// Everything else in /proc belongs to the host, context 0, called "root server".
// One pass over /proc serves all guests; processes that end meanwhile are left out
// without an error.
//
// It only reads: nothing is left behind when it is killed. It needs cgroup v2
// (any kernel; cpu.stat exists without the cpu controller) and sees what the
// /proc and the cgroup2 mount of its own namespaces show, so it counts a
// practice host as it counts a machine.
//
// Traffic is counted by node/netctx; the caller joins the two.
package stat
