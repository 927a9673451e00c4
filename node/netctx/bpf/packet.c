// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// The backstop: every packet of a guest's sockets, in and out. It catches what
// has no hook of its own (sockets that were never bound, ping sockets, sources
// chosen by the route) and what the hooks above forgot.

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

// Deeper than any hierarchy that a person makes.
#define MAX_DEPTH 32

#define DROP 0
#define PASS 1

struct packet {
	struct ip from, to;
	bool four;
	bool options; // IPv4 options, or an IPv6 header that routes
	__u8 proto;
	__u32 payload;
};

static __always_inline bool parse(struct __sk_buff *skb, struct packet *p)
{
	__u8 version;

	if (bpf_skb_load_bytes(skb, 0, &version, 1))
		return false;
	if (version >> 4 == 4) {
		struct iphdr h;

		if (bpf_skb_load_bytes(skb, 0, &h, sizeof(h)))
			return false;
		p->four = true;
		p->from = v4(h.saddr);
		p->to = v4(h.daddr);
		p->proto = h.protocol;
		p->options = h.ihl != 5;
		p->payload = sizeof(h);
		return true;
	}
	if (version >> 4 == 6) {
		struct ipv6hdr h;

		if (bpf_skb_load_bytes(skb, 0, &h, sizeof(h)))
			return false;
		p->four = false;
		__builtin_memcpy(&p->from, &h.saddr, sizeof(p->from));
		__builtin_memcpy(&p->to, &h.daddr, sizeof(p->to));
		p->proto = h.nexthdr;
		p->options = h.nexthdr == IPPROTO_ROUTING || h.nexthdr == IPPROTO_HOPOPTS || h.nexthdr == IPPROTO_DSTOPTS;
		p->payload = sizeof(h);
		return true;
	}
	return false;
}

// The path of a packet is short; the layers of a segmented one are counted as
// the device will send them.
static __always_inline void count(struct __sk_buff *skb, struct traffic *t)
{
	t->packets += skb->gso_segs ?: 1;
	t->bytes += skb->len;
}

static __always_inline bool in_cgroup(const struct settings *s, struct bpf_sock *sk)
{
	for (int level = 0; level < MAX_DEPTH; level++) {
		__u64 id = bpf_sk_ancestor_cgroup_id(sk, level);

		if (id == s->cgroup)
			return true;
		if (id == 0)
			return false;
	}
	return false;
}

enum { NOBODYS, GUESTS, STRANGERS };

// Whose is the socket at near that talks to far, or would?
static __always_inline int whose(struct __sk_buff *skb, const struct settings *s, __u8 proto, const struct ip *near,
				 __be16 near_port, const struct ip *far, __be16 far_port)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool guests;
	__u32 size;

	if (is_v4(near)) {
		t.ipv4.saddr = far->w[3];
		t.ipv4.daddr = near->w[3];
		t.ipv4.sport = far_port;
		t.ipv4.dport = near_port;
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.saddr, far, sizeof(*far));
		__builtin_memcpy(t.ipv6.daddr, near, sizeof(*near));
		t.ipv6.sport = far_port;
		t.ipv6.dport = near_port;
		size = sizeof(t.ipv6);
	}
	if (proto == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return NOBODYS;
	guests = in_cgroup(s, sk);
	bpf_sk_release(sk);
	return guests ? GUESTS : STRANGERS;
}

// Is the packet one to ask about? A TCP connection is judged by its first packet.
static __always_inline bool counts(struct __sk_buff *skb, const struct packet *p)
{
	__u8 flags;

	if (p->proto != IPPROTO_TCP)
		return p->proto == IPPROTO_UDP;
	return bpf_skb_load_bytes(skb, p->payload + 13, &flags, 1) || (flags & 0x12) == 0x02; // SYN without ACK
}

// Does the packet go to a socket of somebody else? Asked for packets to or from
// the guest's loopback address only: a service of the host that listens on every
// address trusts 127.0.0.0/8, and in shared mode it has the guest's addresses.
// Nobody there is nobody's harm.
static __always_inline bool to_stranger(struct __sk_buff *skb, const struct settings *s, const struct packet *p)
{
	__be16 ports[2];

	if (!counts(skb, p))
		return false;
	return bpf_skb_load_bytes(skb, p->payload, ports, sizeof(ports)) ||
	       whose(skb, s, p->proto, &p->to, ports[1], &p->from, ports[0]) == STRANGERS;
}

// Does the packet, which is for the guest's loopback address, come from somebody
// else? Every user of the host can send there, and from there: all of 127.0.0.0/8
// is local, and so is what stands for ::1. A UDP socket that is bound to the
// primary address for the wildcard sends from localhost as well (sendmsg.c).
static __always_inline bool from_stranger(struct __sk_buff *skb, const struct settings *s, const struct packet *p)
{
	__be16 ports[2];
	struct ip first;
	int who;

	if (!counts(skb, p))
		return false;
	if (bpf_skb_load_bytes(skb, p->payload, ports, sizeof(ports)))
		return true;
	who = whose(skb, s, p->proto, &p->from, ports[0], &p->to, ports[1]);
	if (who == NOBODYS && p->proto == IPPROTO_UDP && primary(s, p->four, &first))
		who = whose(skb, s, p->proto, &first, ports[0], &p->to, ports[1]);
	return who != GUESTS;
}

// Does the packet begin something? Answers of a service pass: Azure probes the
// health of what it balances from the address of its metadata service.
static __always_inline bool begins(struct __sk_buff *skb, const struct packet *p)
{
	__be16 port;
	__u8 flags;

	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		return true;
	if (bpf_skb_load_bytes(skb, p->payload + 2, &port, sizeof(port)))
		return true;
	if (is_harmless(p->proto, port))
		return false;
	if (p->proto == IPPROTO_UDP)
		return true;
	return bpf_skb_load_bytes(skb, p->payload + 13, &flags, 1) || (flags & 0x12) == 0x02; // SYN without ACK
}

// Is it for a socket that must not have it: one that has another's port, or one
// that the program believes to be bound to lo? An accepted one has no note.
static __always_inline bool misled(struct __sk_buff *skb, __u8 proto)
{
	struct bpf_sock *sk = skb->sk;
	struct note *n;

	if (!sk)
		return false;
	n = bpf_sk_storage_get(&vs_notes, sk, NULL, 0);
	return n && ((proto != IPPROTO_TCP && borrowed(n, sk)) || (n->lo && skb->ifindex != LOOPBACK_IFINDEX));
}

// Is it a ping of localhost? The route gives it 127.0.0.1 for its source, the
// host's, which nobody can tell from any other: the kernel answers itself.
static __always_inline bool pings_localhost(struct __sk_buff *skb, const struct packet *p)
{
	return (p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6) && skb->ifindex == LOOPBACK_IFINDEX &&
	       is_loopback(&p->from) && is_loopback(&p->to) && !p->options;
}

// Drops what does not come from the guest's address, what goes to the localhost
// of the host or of another guest, what would carry the guest's own localhost
// onto a wire, source routes, and questions to the cloud's metadata service.
SEC("cgroup_skb/egress")
int vs_egress(struct __sk_buff *skb)
{
	const struct settings *s = settings();
	struct counters *c = bpf_get_local_storage(&vs_traffic, 0);
	struct packet p = {};
	bool to_loop;

	if (!parse(skb, &p))
		return DROP;
	if (pings_localhost(skb, &p))
		return PASS;
	if (p.options || !vs_is_own(&p.from))
		return DROP;
	to_loop = is_own_loopback(s, &p.to);
	if (!to_loop && (is_loopback(&p.to) || is_loop6(&p.to)))
		return DROP;
	if (to_loop || is_own_loopback(s, &p.from))
		if (skb->ifindex != LOOPBACK_IFINDEX || to_stranger(skb, s, &p))
			return DROP;
	// Ping passes no hook but this. TCP and UDP may be here by a forward.
	if (p.proto != IPPROTO_TCP && p.proto != IPPROTO_UDP && closed(&p.to))
		return DROP;
	if (!s->metadata && is_metadata(&p.to) && !vs_is_own(&p.to) && begins(skb, &p))
		return DROP;
	count(skb, p.four ? &c->v4_out : &c->v6_out);
	return PASS;
}

// Drops what does not go to the guest's address, and what comes to its localhost
// from elsewhere: Linux takes a packet for an address of lo on every device, and
// of IPv6 knows no more than ::1 that is out of reach. Who is on the wire, or is
// a guest in mode nat, can send to the address that stands for ::1. And whoever
// is on the host, to every localhost: a service of the guest trusts its own.
SEC("cgroup_skb/ingress")
int vs_ingress(struct __sk_buff *skb)
{
	const struct settings *s = settings();
	struct counters *c = bpf_get_local_storage(&vs_traffic, 0);
	struct packet p = {};

	if (!parse(skb, &p))
		return DROP;
	if (pings_localhost(skb, &p))
		return PASS;
	if (!vs_is_own(&p.to))
		return DROP;
	if (is_own_loopback(s, &p.to) && (skb->ifindex != LOOPBACK_IFINDEX || from_stranger(skb, s, &p)))
		return DROP;
	if (misled(skb, p.proto))
		return DROP;
	count(skb, p.four ? &c->v4_in : &c->v6_in);
	return PASS;
}
