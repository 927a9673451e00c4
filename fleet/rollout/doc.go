// Package rollout makes a fleet match its inventory: it asks each host for its state,
// lets package plan decide what must change, and carries the plans out on many hosts at
// once.
//
// # The road of one apply
//
// A host goes through the states of states.go: vsfleet connects to it, locks it against
// other runs and compares it with the inventory. A missing image comes from a host of
// the inventory that has it. If no host has it, one that needs it builds it, once for
// the fleet. The others get it as a stream through the controller, which buffers it in
// an unnamed file until the run ends. Each target reads at its own pace, so a slow or
// dead one does not delay the others. Then each host gets its steps in one request, or
// in several if one guest takes over what another gives up, and answers with one result
// per step.
//
// # Batches
//
// A run with a [Strategy] of several batches first takes all hosts along a short road,
// without leases, to find those that have something to change. Then each batch goes
// along the whole road by itself: its leases are held only as long as the batch takes,
// and its plans are no older than the batch. The states connect, lock and assign of a
// batch wait for the hosts of that batch only. Images that earlier batches have come
// from their hosts. The rule (rule.go) counts failed and disrupted hosts over all
// batches, and is asked before each state that changes a host.
//
// Everything that a run knows about a host belongs to the one goroutine that takes the
// host through a state. Only the connection is shared, with the images that are built
// on the host and sent from it. The result of an image is a value that hosts read when
// it is ready.
//
// # Guarantees
//
// Nothing is remembered between runs. After a complete run, a second one plans nothing;
// after an interrupted one, it plans the rest. A failure on one host or of one guest
// does not stop others, unless the strategy says so. A step that was sent and not
// answered is reported as failed, never as done. When the context ends, no more hosts
// are begun; vsnode finishes or undoes the steps under way, and reports which.
//
// # Edges
//
// Nothing here prints, reads flags or knows SSH: hosts are reached through [Node],
// progress goes to a callback, all results to a [report.Run]. Guests that are not in
// the inventory are named and left alone.
package rollout
