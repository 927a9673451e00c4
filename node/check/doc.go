// Package check reports whether a host is able to run guests, and what is in the
// way: what testme.sh was to Linux-VServer.
//
// Its table has a row for each ability of the host (node/probe), and one for each
// condition that gets in guests' way: listeners, packet filters, users whose ids
// are a guest's, a disk that is full. A row that could not be told says so; that
// is not a no, and stops nobody. Abilities that a start needs are the same ones:
// the two cannot disagree.
//
// It changes nothing that others see, and removes what probes left that were
// killed. It runs on any kernel, and needs root to tell more than half.
package check
