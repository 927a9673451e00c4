// Package netctx gives a guest its network context: what it may bind, connect
// from and receive on while it shares the host's network stack. It is made of
// BPF programs on the guest's cgroup (bpf/, one file a family) and of settings
// in cgroup storage; no packet takes another way than a packet of the host.
//
// Attach comes before the first process of the guest: a socket is judged by
// the cgroup that it was made in. The guest is meant to be in a user namespace
// of its own, which has no say in the host's network namespace, and under a
// seccomp filter that leaves it no sockets but UNIX, INET, INET6 and routing
// netlink. Those two belong to node/procctx; so does Landlock, which closes
// abstract Unix sockets best. Where it cannot, Attach does (Guard says how).
//
// # What a guest sees
//
// 127.0.0.N is the guest's 127.x.y.N (Loopback), ::1 its address on lo
// (Loopback6), 0.0.0.0 and :: its primary address of that family. A service on
// the wildcard is found on localhost as well. A TCP listener on the wildcard
// answers on all addresses of the guest, and [::] for both families on those of
// both (bpf/steer.c): it is bound to one of them, and a program of the network
// namespace leads the connections to the others to it. A port that the kernel
// chose and that the guest does not own is left out, as it can be somebody
// else's there.
//
// A UDP socket on the wildcard has one address: the first of its family, and of
// [::] for both, of the family of the first of Spec.Addresses. The kernel tells no
// program that could enter such a socket into a map of when it is bound.
//
// A client that was bound to the wildcard before it asks localhost has the guest's
// address for its source. Its server is told 127.0.0.1 all the same (bpf/names.c),
// as long as the kernel is asked by accept, getpeername or recvmsg.
//
// Owned ports hold for TCP and UDP. An ephemeral port is anybody's for the time
// of a connection: a service above 32767 (ip_local_port_range) is safe from that
// once it is in net.ipv4.ip_local_reserved_ports. Nobody is given a port on which
// a service runs: UDP's SO_REUSEADDR, which would allow that, takes effect only
// with a port that bind was told. Ephemeral tells which of a guest's ports need
// to be reserved.
//
// Private addresses of guests in mode nat (node/nat) are out of reach; forwards
// to them are not.
//
// Seen and not hidden: the host's interfaces and addresses, and everybody's
// sockets in /proc/net. Ping sockets take their source from the route, and a table
// of nftables gives them the guest's (PingFrom). Localhost is the host's to ping.
// A UDP socket that sent before it was connected has the same trouble, and so
// has one that is connected elsewhere without a disconnect; an IPv6 one that was
// connected to IPv6 takes no IPv4 destination any more (getaddrinfo makes a new
// one then). Disconnected and not connected again, a UDP socket keeps the source.
//
// # Killed
//
// Programs are loaded once a boot, pinned beside and renamed to
// /sys/fs/bpf/vservers/HASH_NETNS, where HASH is that of the object: the directory
// is there whole or not at all. A newer vsnode has another HASH; guests that run
// keep the programs that they were started with. Nothing is pinned for a guest:
// what Attach attached goes with the cgroup (GuardLSM keeps one number a XID), so a start that was killed leaves
// nothing once its cgroup is removed. Addresses that AddAddresses put on a
// device carry a mark (IFA_PROTO), which is how RemoveAddresses knows them.
//
// Kernel: 6.1 (bpf_set_retval in all of these hooks), on little-endian machines.
package netctx
