// Package guest manages a host's guests: their configurations, their lives from
// create over configure, start, stop and restart to delete, and programs run inside.
//
// The configuration is a directory of small files in Linux-VServer's layout
// (config.go). It is replaced as a whole by renames, so whenever vsnode is killed, it
// is either the old or the new one. Whether a guest runs is never stored but read from
// the kernel: its cgroup has processes.
//
// # A guest in hand
//
// Whatever changes a guest is a method of Guest, which [Host.Hold] passes to a
// function. While it is held, no other vsnode and no other goroutine of this one
// starts, stops, changes or deletes the guest. The guest's own processes, and an
// administrator with an editor, are not held back. Therefore
//
//   - what depends on processes (does it run? which is its process 1?) is read from
//     the kernel each time;
//   - the configuration is read once, when it is first needed, so that no operation
//     acts on two versions of it;
//   - the notes of the guest's start are read once, and written before what they
//     announce is done. In memory they equal those on disk, or are ahead of them if
//     writing failed: what is undone may be more than was done, never less;
//   - its cgroup is found once.
//
// Methods of [Host] with a guest's name hold it for one operation, or only read,
// without the lock: what they return may have changed meanwhile.
//
// What depends on all guests (contexts, ports, addresses) is decided under one lock
// for all guests. The holder of that lock never waits for a guest's.
//
// # Killed
//
// Every operation can be killed and called again. Stopping a stopped guest is not an
// error, and starting a running one is reported as such. Each operation first cleans up
// what a killed one left (the cgroup, addresses, forwards). A start is a list of steps,
// each with its undo (start.go), which depends on the notes alone.
//
// # Never
//
// A file in a guest's root is never opened by its path on the host while the guest
// can write there; programs of a guest run inside it only.
package guest
