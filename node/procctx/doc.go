// Package procctx makes the isolated processes that a guest consists of: the
// namespaces, ids, mounts, capabilities, filters and the cgroup that its first
// process is born into (Start), and a way to run further programs in them (Exec).
// It knows nothing of configuration, images or addresses; its caller supplies them.
//
// A process is started by clone3, and the child makes a list of raw system
// calls prepared by its parent (script.go). There is no second vsnode in between,
// no process of ours stays, and no binary of ours enters the guest.
//
// Killed: if the parent dies before it has handed over the mounts, the child ends
// too; after that, the guest runs as if Start had returned. The mounts exist in
// the guest's namespaces only and disappear with its last process. An empty
// cgroup may be left behind (package cgroup).
//
// Kernel: 6.1. clone3 into a cgroup (5.7), setns by pidfd (5.8) and
// idmapped layers of overlayfs (5.19) have no fallback.
package procctx
