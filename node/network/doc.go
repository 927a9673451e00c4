// Package network gives guests their networks. It has one Mode for each kind of
// network that a guest can have.
//
//	shared  the host's network, with ports of one of the host's addresses
//	own     the host's network, with addresses that nobody else has
//	nat     a network namespace behind the host, with forwards into it
//
// The kernel side is in node/netctx (shared and own) and in node/nat. All differences
// between modes are here, and nowhere else on a host.
//
// For a guest, its mode's methods are called in this order: Check, Attach and Publish
// at the start; Update and Publish for each change; Drift and Repair for what somebody
// else took away; and Release once the guest has no processes.
//
// # Killed
//
// Attach notes what it does before it does it (Notes, Save). So Release, given
// those notes, undoes all of it, whenever vsnode was killed, and may be called again.
// Update and Publish may be repeated as well.
package network
