// Package devices confines a guest to devices: a BPF program on its cgroup refuses to
// open any device node that is not of every guest or in the guest's own list, wherever
// the node comes from. It is the second lock beside nodev.
//
// The program is attached before the guest has a process, and lives as long as its
// cgroup: nothing keeps running, and there is nothing to undo. That of guests without
// devices of their own is pinned too, for the next start; a pin that is removed is made
// again. It is asked when a device node is opened, not for reads and writes.
package devices
