// Package guest holds a host's guests: their configurations and their lives, from
// create over configure, start, stop and restart to delete, and what is run inside.
//
// The configuration is a directory of small files in Linux-VServer's layout
// (config.go). It is replaced as a whole by renames, so it is the old one or
// the new one, whenever vsnode is killed. Whether a guest runs is never
// remembered but read from the kernel: its cgroup has processes.
//
// # A guest in hand
//
// Whatever changes a guest is a method of Guest, which [Host.Hold] gives to a
// function. While it is held, no other vsnode and no other goroutine of this one
// starts, stops, changes or deletes the guest. The guest's own processes, and an
// administrator with an editor, do what they like. Therefore
//
//   - what processes decide (does it run? which is its process 1?) is asked of the
//     kernel each time;
//   - the configuration is read once, when it is first needed, so that nothing acts
//     on two versions of it;
//   - the notes of the guest's start are read once, and written before what they
//     announce is done. In memory they are what is on disk, or ahead of it where
//     writing failed: what is taken back may be more than was given, never less;
//   - its cgroup is found once.
//
// Methods of [Host] with a guest's name hold it for one operation, or only look at
// it, without the lock: what they return may have changed meanwhile.
//
// What needs to be seen whole (contexts, ports, addresses) is decided under one
// lock for all guests. Who holds that lock never waits for a guest's.
//
// # Killed
//
// Every operation can be killed and called again. Start of what runs and Stop of
// what does not are no errors, and each begins with cleaning up what a killed one
// left (the cgroup, addresses, forwards). A start is a list of steps, each with what
// takes it back (start.go); taking back goes by the notes alone.
//
// # Never
//
// Nothing in a guest's root is ever opened by the host's path while the guest
// can write there; programs of a guest run inside it only.
package guest
