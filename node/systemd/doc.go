// Package systemd asks the host's systemd, where it runs the host, to start and stop
// the units in which guests live, and writes these units.
//
// A guest is the service vserver@NAME.service in vservers.slice. Its ExecStart is a
// vsnode that makes the guest's first process within the unit's cgroup, names it as the
// unit's main process and exits: systemd supervises the guest and learns how it ended,
// and nothing of vsnode's stays. units.go has the texts.
//
// systemd is asked over its private socket (bus.go), which is there for root without a
// bus daemon and speaks D-Bus.
//
// Killed: a job that was asked for goes on. Unit files are written beside and renamed;
// systemd reads them when the next call reloads it.
//
// Kernel and systemd: cgroup v2 alone (a unified hierarchy), systemd 252.
//
// It never stops a unit that is not a guest's, and enables none but vservers@MARK.
package systemd
