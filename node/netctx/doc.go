// Package netctx gives a guest its network context: what it may bind, connect
// from and receive on while it shares the host's network stack. It consists of
// BPF programs on the guest's cgroup (bpf/, one file per family) and of settings
// in cgroup storage; a guest's packets take the same way as the host's.
//
// Attach must come before the first process of the guest: a socket belongs to the
// cgroup that it was created in. The guest is meant to be in a user namespace of its
// own, which has no power over the host's network namespace, and under a seccomp
// filter that allows only UNIX, INET and INET6 sockets and routing and device event
// netlink. Those two belong to node/procctx; so does Landlock, which closes abstract
// Unix sockets best. Where it is missing, Attach does that (see Guard).
//
// # What a guest sees
//
// 127.0.0.N is the guest's 127.x.y.N (Loopback), ::1 its address on lo
// (Loopback6), 0.0.0.0 and :: its primary address of that family. A service on
// the wildcard is found on localhost as well. A TCP listener on the wildcard
// accepts on all addresses of the guest, and one on [::] for both families on those of
// both (bpf/steer.c): it is bound to one of them, and a program of the network
// namespace directs connections to the others to it. A port that the kernel chose and
// that the guest does not own is left out, as it may belong to somebody else there.
//
// A UDP socket on the wildcard has one address: the first of its family, and for
// [::] with both families, the first of Spec.Addresses. The kernel calls no program
// that could put such a socket into a map when it is bound.
//
// A client that was bound to the wildcard before it connects to localhost has the
// guest's address as its source. Its server still sees 127.0.0.1 (bpf/names.c) from
// accept, getpeername and recvmsg.
//
// Owned ports hold for TCP and UDP. An ephemeral port may be anybody's for the time
// of a connection: a service above 32767 (ip_local_port_range) is safe from that
// once its port is in net.ipv4.ip_local_reserved_ports. The kernel never chooses a
// port on which a service runs: UDP's SO_REUSEADDR, which would allow that, takes
// effect only if bind was given the port. Ephemeral returns the ports of a guest that
// need to be reserved.
//
// Private addresses of guests in mode nat (node/nat) are out of reach; forwards
// to them are not.
//
// Not hidden are the host's interfaces and addresses, and everybody's sockets in
// /proc/net. Ping sockets take their source from the route, and an nftables table
// changes it to the guest's (PingFrom). A ping to localhost reaches the host's. A UDP
// socket that sent before it was connected has the same limitation, and so has one
// that is connected elsewhere without a disconnect; an IPv6 one that was connected to
// IPv6 accepts no IPv4 destination any more (getaddrinfo makes a new one then). A UDP
// socket that was disconnected and not connected again keeps its source.
//
// # Killed
//
// Programs are loaded once per boot, pinned in a temporary directory and renamed to
// /sys/fs/bpf/vservers/HASH_NETNS, where HASH is that of the object: the directory
// exists as a whole or not at all. A newer vsnode has another HASH; running guests
// keep the programs that they were started with. Nothing is pinned for a guest: what
// Attach attached disappears with the cgroup (GuardLSM keeps one number per XID), so a
// start that was killed leaves nothing once its cgroup is removed. Addresses that
// AddAddresses put on a device carry a mark (IFA_PROTO), by which RemoveAddresses
// recognizes them.
//
// Kernel: 6.1 (bpf_set_retval in all of these hooks), on little-endian machines.
package netctx
