// Package procctx makes the isolated processes that a guest consists of: the
// namespaces, ids, mounts, capabilities, filters and the cgroup that its first
// process is born into (Start), and the way into them for another (Exec). It
// knows nothing of configuration, images or addresses: its caller says.
//
// A process is started by clone3, and the child makes a list of raw system
// calls that was written down before (script.go). There is no second vsnode in between, no
// process of ours that stays, and no binary of ours in the guest.
//
// Killed: before the parent has handed over the mounts, the child ends with
// it; after that, the guest runs as if Start had returned. Mounts live in the
// guest's namespaces only and go with its last process. What can be left over
// is an empty cgroup (package cgroup).
//
// Kernel: 6.1. clone3 into a cgroup (5.7), setns by pidfd (5.8),
// idmapped layers of overlayfs (5.19), all without a fallback.
package procctx
