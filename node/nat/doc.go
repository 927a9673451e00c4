// Package nat gives guests private networks behind their host.
//
// A guest in nat mode has a network namespace of its own, owned by its user
// namespace (so iptables and nft work inside). One veth pair leads out of it:
// eth0 inside, vs<XID> outside, in device group 30323. Addresses are computed from
// the XID, so no lease can be lost: XID 666 is 100.64.2.154 and
// fd76:7365:7276:1cad::29a; the host is XID 1, the same on every veth. A guest
// has a single address of each family (/32, /128), and the host routes everything
// that it sends.
//
// Two nftables tables, inet vservers and arp vservers, do the rest. Their rules look
// up sets and maps, whose elements describe the guests: [Sync] adds and deletes
// elements in one transaction, from the list of running guests. If the tables are
// damaged, it replaces them as a whole. Their chains:
//
//	chain guard       packets from a guest must carry its address, and not be for
//	                  127.0.0.0/8, nor for addresses that stand for ::1 in guests
//	                  of the host's network, nor for the metadata services of
//	                  clouds; a guest cannot invent neighbours
//	chain bound       a guest may use at most a sixteenth of conntrack's table
//	                  for each family
//	chain forwards    from prerouting and output: ports of the host's addresses
//	                  lead to guests (maps any4, any6, at4, at6)
//	chain forward     to a guest: answers and forwarded ports only
//	chain postrouting masquerades what a guest sends elsewhere, and what it sends
//	                  to itself through a forward of its own
//	chain output      forwards on localhost, see below; no ICMP redirects
//	chain input       the way back of forwards on localhost; in table arp,
//	                  requests must carry the guest's address, as the host
//	                  remembers who asks
//
// Tables of others are not touched. If a base chain in one of them drops forwarded
// packets, no table of ours can overrule it: [Problems] reports it with the cure.
//
// # No bridge
//
// Each guest has a routed veth instead. On a bridge, ports must be isolated, or guests
// reach, and claim, each other's addresses without the host noticing; and where
// br_netfilter is on (Docker, Kubernetes), a packet translated from one guest to
// another is sent from port to port without leaving the bridge, which isolation then
// drops: forwards between guests would work on some hosts only. With routing, guests
// share no layer 2, and the device that a packet comes from identifies its sender.
//
// Guests reach one another through forwards, not by private address. They reach the
// host's own addresses as anybody outside does, and never its loopback. Until Sync
// has added a guest, the guard drops everything that the guest sends.
//
// # Forwards on localhost
//
// On the host, localhost:PORT leads to the guest, too. The usual way is
// net.ipv4.conf.*.route_localnet, which lets everybody on the link reach
// 127.0.0.1 as soon as a rule that forbids it is lost (CVE-2020-8558, and
// `nft flush ruleset`), and which IPv6 does not have. Instead, chain output sets
// the packet's source to the gateway's address before conntrack sees it, and chain
// input restores 127.0.0.1 in the answer. The IPv6 pool's prefix adds up to zero in
// ones' complement, so that ::1 and the gateway's address have the same checksum.
// Two limits follow: ports in net.ipv4.ip_local_port_range are not forwarded on
// localhost, because a connection there may have such a source port; and a closed UDP
// port times out instead of answering "connection refused".
//
// # Killed, and changed
//
// Attach, Detach and Sync hold a lock, /run/vservers/nat.lock, and may be killed
// at any point: called again, they reach the same result. The veth disappears with
// its guest. Without guests, Sync removes the tables. IP forwarding stays on, because
// somebody else may depend on it by then.
//
// A forward that was removed translates no new connections, and those that it had
// end: Sync deletes them from conntrack, together with UDP conversations that a new
// forward leads elsewhere, and those of a guest that has gone. All others continue.
//
// [Drift] finds what somebody else removes while guests run (`nft flush ruleset`, a
// device, a route, forwarding); Attach and Sync restore it.
//
// Kernel: nftables with NAT in family inet (5.2), the incoming device known in
// postrouting (5.7), veth.
package nat
