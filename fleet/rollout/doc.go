// Package rollout makes a fleet match its inventory: it asks each host what it
// has, has package plan decide what must change, and carries the plans out on
// many hosts at once.
//
// # The road of one apply
//
// A host goes through the states of states.go: vsfleet connects to it, locks it
// against other runs and compares it with the inventory. An image that it lacks
// comes from a host of the inventory that has it. If none has, one that needs it
// builds it, once for the fleet, and the others get it as a stream through the
// controller, which keeps it in a file without a name until the run ends. Each
// target reads at its own pace, so a slow or dead one does not hold up the others.
// Then each host gets its steps in one request, or in several where one guest takes
// over what another gives up, and answers with one result per step.
//
// # Batches
//
// A run with a [Strategy] of several batches takes all hosts along a short road first,
// without their leases, to find those that have something to change. Then each batch
// goes along the whole road by itself: its leases are held no longer than it takes,
// and its plans are as old as the batch. The states connect, lock and assign of a batch
// wait for the hosts of that batch only. Images that another batch has got already come
// from its hosts. The rule (rule.go) keeps count of failed and of disrupted hosts over
// all batches, and is asked before each state that changes a host.
//
// All that a run knows of a host belongs to the one goroutine that takes it through
// a state. It shares only the connection, with the images that are built and handed
// out there. What comes of an image is a value that hosts read when it is ready.
//
// # Guarantees
//
// Nothing is remembered between runs. After a complete run, a second one plans
// nothing; after an interrupted one, it plans the rest. A failure on one host or of
// one guest stops nothing elsewhere. A step that was sent and not answered is
// reported as failed, never as done. When the context ends, no more hosts are
// begun; vsnode finishes or undoes the steps under way, and reports which.
//
// # Edges
//
// Nothing here prints, reads flags or knows SSH: hosts are reached through [Node],
// progress goes to a callback, all results to a [report.Run]. Guests that are not in
// the inventory are named and left alone.
package rollout
