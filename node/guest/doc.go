// Package guest is a guest's configuration on its host and its life: create,
// configure, start, stop, run a program inside, delete.
//
// The configuration is a directory of small files in Linux-VServer's layout
// (config.go); it is replaced as a whole by renames, so it is the old one or
// the new one, whenever vsnode is killed. Whether a guest runs is never
// remembered but read from the kernel: its cgroup has processes.
//
// Every operation holds the guest's lock and can be killed and called again:
// Start of what runs and Stop of what does not are no errors, and each begins
// with cleaning up what a killed one left (the cgroup, addresses, forwards).
// What needs to be seen whole (contexts, ports, addresses) is decided under
// one lock for all guests.
//
// Nothing in a guest's root is ever opened by the host's path while the guest
// can write there; programs of a guest run inside it only.
package guest
