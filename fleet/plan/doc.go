// Package plan decides what must change on a host so that it matches its
// inventory.
//
// [Make] compares what a host should have with what it has and returns the
// steps; [Act] does the same for a single action on guests; [Sources] decides
// which host builds or hands out an image that others lack. Steps are in the
// order in which they are to be taken: a guest that gives something up comes
// before the one that takes it over.
//
// # Edges
//
// All of it is pure: the inventory and the states of hosts in, steps out. It
// connects to nothing, waits for nothing and remembers nothing; equal input
// gives equal plans. The steps are carried out by package rollout.
package plan
