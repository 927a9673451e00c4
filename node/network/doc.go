// Package network gives guests their networks: it has one Mode for each way in
// which a guest may have one.
//
//	shared  the host's network, with ports of one of the host's addresses
//	own     the host's network, with addresses that nobody else has
//	nat     a network namespace behind the host, with forwards into it
//
// What the kernel is made to do for that is in node/netctx (shared and own) and
// in node/nat. What differs between modes is here, and nowhere else on a host.
//
// A guest's way through its mode is Check, Attach, Publish; then Update and
// Publish for each change, Drift and Repair for what somebody else took away;
// and Release when it has no process any more.
//
// # Killed
//
// What Attach does is noted before it is done (Notes, Save). So Release, given
// those notes, takes back all of it, whenever vsnode was killed, and may be
// called again. Update and Publish may be repeated as well.
package network
