// Package rollout makes a fleet match its inventory: it asks each host what it
// has, has package plan decide what must change, and carries the plans out on
// many hosts at once.
//
// # The road of one apply
//
// A host goes through named states, which stand in states.go: it is connected
// and asked for its state, locked against other runs, and compared with the
// inventory. An image that a host lacks comes from any host of the inventory that
// has it; if none has, one that needs it builds it, once for the fleet, and the
// others get it as a stream through the controller, where it is kept in a file
// without a name until the run ends: each target reads at its own pace and a slow
// or dead one is nobody else's matter. Then each host gets its steps in one
// request, or in several where one guest takes over what another gives up, and
// answers with one result per step.
//
// All that a run knows of a host belongs to the one goroutine that takes it
// through a state. Only its connection is shared, with the images that are built
// and handed out there; what comes of an image is a value that the hosts read when
// it is ready.
//
// # Guarantees
//
// Nothing is remembered between runs: the state of the hosts is the state. A
// second run after a complete one plans nothing; after an interrupted one, the
// rest. What failed on one host or for one guest stops nothing elsewhere. The
// result of a step that was sent and not answered is reported as failed, never
// as done. When the context ends no host is begun any more; steps under way
// are ended by vsnode, which finishes or undoes them and says which.
//
// # Edges
//
// Nothing here prints, reads flags or knows SSH: hosts are reached through
// [Node], progress goes to a callback, all results to a [report.Run]. Guests that
// the inventory does not know are named and left alone.
package rollout
