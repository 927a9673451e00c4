// Package check reports whether a host can run guests and what prevents it, as
// testme.sh did for Linux-VServer.
//
// Its table has a row for each ability of the host (node/probe), and one for each
// condition that gets in guests' way: listeners, packet filters, users whose IDs
// belong to a guest, a full disk. A row whose answer is unknown says so; that is not
// a no, and prevents nothing. A start asks the same probes, so that it cannot
// disagree with check.
//
// It changes nothing that others see, and removes what killed probes left. It runs on
// any kernel; without root, more than half of the rows are unknown.
package check
