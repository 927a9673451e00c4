// Package nat gives guests private networks behind their host.
//
// A guest in nat mode has a network namespace of its own, owned by its user
// namespace (so iptables and nft work inside). One veth pair leads out of it:
// eth0 inside, vs<XID> outside, of device group 30323. Addresses are a
// function of the XID, so there is no lease to lose: XID 666 is 100.64.2.154
// and fd76:7365:7276:1cad::29a; the host is XID 1, on every veth the same. A guest
// has a single address of each family (/32, /128), and the host routes whatever
// it sends.
//
// Two nftables tables, inet vservers and arp vservers, do the rest. Their rules
// ask sets and maps; what a guest has are elements of these, which [Sync] adds
// and deletes in one transaction, from the list of running guests. Where the
// tables are not as they should be, it makes them anew as a whole. In nft's words:
//
//	chain guard       what comes from a guest must carry its address, and not
//	                  be for 127.0.0.0/8, nor for what stands for ::1 in guests
//	                  of the host's network, nor for the metadata services of
//	                  clouds; neighbours are not made up
//	chain bound       a guest has no more than a sixteenth of conntrack's table
//	                  with each family
//	chain forwards    from prerouting and output: ports of the host's addresses
//	                  lead to guests (maps any4, any6, at4, at6)
//	chain forward     to a guest: answers and forwarded ports only
//	chain postrouting what a guest sends elsewhere is masqueraded; so is what it
//	                  sends to itself by a forward of its own
//	chain output      forwards on localhost, see below; no ICMP redirects
//	chain input       the way back of forwards on localhost; in table arp,
//	                  requests must carry the guest's address, as the host
//	                  remembers who asks
//
// Nobody else's tables are touched. A base chain of somebody else that drops
// what is forwarded cannot be overruled from a table of ours: [Problems] finds
// it and says what to do.
//
// # No bridge
//
// A veth a guest, routed, is what is left when a bridge is made safe. On a
// bridge, ports must be isolated, or guests reach, and claim, each other's
// addresses behind the host's back; and where br_netfilter is on (Docker, Kubernetes),
// a packet translated from one guest to another is sent from port to port
// without leaving the bridge, which isolation then drops: forwards between
// guests would work on some hosts only. Routed, there is no layer 2 between guests,
// and the device that a packet comes from tells who sent it.
//
// Guests reach one another through forwards and not by private address. They
// reach the host's own addresses as anybody outside does, and never its
// loopback. Before Sync has named a guest, the guard drops all that it
// sends.
//
// # Forwards on localhost
//
// On the host, localhost:PORT leads to the guest, too. The usual way is
// net.ipv4.conf.*.route_localnet, which lets everybody on the link reach
// 127.0.0.1 as soon as a rule that forbids it is lost (CVE-2020-8558, and
// `nft flush ruleset`), and which IPv6 does not have. Instead, chain output gives
// the packet the gateway's address as its source before conntrack sees it, and
// chain input gives the answer its 127.0.0.1 back. The IPv6 pool's prefix adds
// up to zero in ones' complement, so that ::1 and the gateway's address have
// one checksum. The price: ports in net.ipv4.ip_local_port_range are not forwarded
// on localhost, because a connection there may have such a source port, and
// a closed UDP port is a timeout instead of "connection refused".
//
// # What is left when killed, and what changes
//
// Attach, Detach and Sync hold a lock, /run/vservers/nat.lock, and may be killed
// at any point: called again, they come to the same end. A guest's death takes
// the veth along. Without guests, Sync removes the table. IP forwarding stays
// on, because somebody else may rely on it by then.
//
// Forwards that are gone translate nothing new, and their connections end:
// Sync deletes them from conntrack, and UDP conversations that a new forward
// would have led elsewhere, and all that a guest leaves. All others go on.
//
// What somebody else takes away while guests run (`nft flush ruleset`, a device,
// a route, forwarding) is found by [Check] and put back by [Repair].
//
// Kernel: nftables with NAT in family inet (5.2), the incoming device known in
// postrouting (5.7), veth.
package nat
