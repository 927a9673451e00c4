// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Where a guest's localhost leads, and where its packets come from.

// Who receives at an address and port.
enum {
	NOBODY,
	EXACTLY,  // a socket bound to just this address, so one of its owner
	SOMEBODY, // a socket bound to every address; of the host, most likely
	BOTH = 4, // it is one for both families
	MINE = 8, // a socket that the guest made
};

// The address that a socket is bound to. Both are read, as the compiler would else
// compute with the pointer, which the verifier does not have.
static __always_inline struct ip bound_to(struct bpf_sock *sk)
{
	struct ip four = v4(*(volatile __u32 *)&sk->src_ip4), six;

	for (int i = 0; i < 4; i++)
		six.w[i] = *(volatile __u32 *)&sk->src_ip6[i];
	return sk->family == AF_INET ? four : six;
}

// Where a datagram socket that is bound to the wildcard is, to localhost.
static __always_inline struct ip local_end(const struct settings *s, struct bpf_sock *sk, const struct ip *other)
{
	struct ip a = bound_to(sk);

	return is_any(&a) ? own_loopback(s, other) : a;
}

// A datagram may find a socket that is connected to the one that it comes from.
__noinline int vs_listens(struct bpf_sock_addr *ctx, const struct ip *a)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	struct note *n;
	bool udp = ctx->protocol == IPPROTO_UDP;
	struct ip at4, at6, from;
	int more;
	__u32 size;

	if (!a)
		return NOBODY;
	from = local_end(settings(), ctx->sk, a);
	if (!udp || is_v4(&from) != is_v4(a))
		from = (struct ip){};
	if (is_v4(a)) {
		t.ipv4.saddr = from.w[3];
		t.ipv4.sport = udp ? bpf_htons(ctx->sk->src_port) : 0;
		t.ipv4.daddr = a->w[3];
		t.ipv4.dport = ctx->user_port;
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.saddr, from.w, sizeof(t.ipv6.saddr));
		t.ipv6.sport = udp ? bpf_htons(ctx->sk->src_port) : 0;
		__builtin_memcpy(t.ipv6.daddr, a->w, sizeof(t.ipv6.daddr));
		t.ipv6.dport = ctx->user_port;
		size = sizeof(t.ipv6);
	}
	if (udp)
		sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return NOBODY;
	more = sk->family == AF_INET6 ? BOTH : 0;
	n = bpf_sk_storage_get(&vs_notes, sk, NULL, 0);
	if (n && n->context == settings()->context)
		more |= MINE;
	// Both are read, as the compiler would else compute with the pointer, which
	// the verifier does not have.
	at4 = v4(sk->src_ip4);
	for (int i = 0; i < 4; i++)
		at6.w[i] = *(volatile __u32 *)&sk->src_ip6[i];
	bpf_sk_release(sk);
	return (same(is_v4(a) ? &at4 : &at6, a) ? EXACTLY : SOMEBODY) | more;
}

// Who sends from an address and port to another.
enum {
	GONE,     // nobody, or nobody any more
	FOREIGN,  // not a socket of the guest
	NAMED,    // one whose address the program chose
	UNNAMED,  // one that was bound to the wildcard
	LOCAL = 4 // and it was connected to localhost
};

__noinline int vs_sender(struct bpf_sock_addr *ctx, const struct ip *from, const struct ip *to, __u32 ports)
{
	__be16 from_port = ports >> 16, to_port = ports;
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	struct note *n;
	int who = GONE;
	__u32 size;

	if (!from || !to || is_v4(from) != is_v4(to))
		return GONE;
	if (is_v4(from)) {
		t.ipv4.saddr = to->w[3];
		t.ipv4.sport = to_port;
		t.ipv4.daddr = from->w[3];
		t.ipv4.dport = from_port;
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.saddr, to->w, sizeof(t.ipv6.saddr));
		t.ipv6.sport = to_port;
		__builtin_memcpy(t.ipv6.daddr, from->w, sizeof(t.ipv6.daddr));
		t.ipv6.dport = from_port;
		size = sizeof(t.ipv6);
	}
	if (ctx->protocol == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return GONE;
	if (sk->dst_port == to_port) { // not a listener at the same place
		n = bpf_sk_storage_get(&vs_notes, sk, NULL, 0);
		if (!n || n->context != settings()->context)
			who = FOREIGN;
		else
			who = (n->any ? UNNAMED : NAMED) | (n->local ? LOCAL : 0);
	}
	bpf_sk_release(sk);
	return who;
}

// Where localhost leads.
enum {
	NOWHERE, // to a stranger
	HERE,    // to the guest's loopback address
	NEAR,    // to its primary address: a wildcard listener of its own, bound there, has the port
};

// Turns one of 127.0.0.0/8, ::1, 0.0.0.0 or :: into what it means in the guest.
// Refuses to lead a connection to a wildcard listener of the host, which would
// take the guest for a local user. cross: an IPv6 socket may go to IPv4.
__noinline int vs_localhost(struct bpf_sock_addr *ctx, struct ip *a, int cross)
{
	const struct settings *s = settings();
	__u32 proto = ctx->protocol;
	struct ip at;
	int who;

	if (!a)
		return NOWHERE;
	*a = own_loopback(s, a);
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP) // ping
		return HERE;
	who = vs_listens(ctx, a);
	if (who & EXACTLY || (proto == IPPROTO_TCP && who & MINE))
		return HERE;
	// In shared mode others have that address too.
	if (primary(s, is_v4(a), &at) && (vs_listens(ctx, &at) & (EXACTLY | MINE)) == (EXACTLY | MINE)) {
		*a = at;
		return NEAR;
	}
	// [::] for both families may be bound to the IPv4 address.
	if (cross && !is_v4(a) && primary(s, true, &at) && vs_listens(ctx, &at) == (EXACTLY | BOTH | MINE)) {
		*a = at;
		return NEAR;
	}
	// A listener that was never bound is on every address, the guest's own too.
	// For UDP the packet hook looks whose it is.
	return proto == IPPROTO_TCP && who & SOMEBODY && !(who & MINE) ? NOWHERE : HERE;
}

// Is it a private address of a guest in mode nat? The host routes to them, and
// only what it forwards is filtered (node/nat). A forward is no such address
// yet: it is translated after this.
static __always_inline bool closed(const struct ip *to)
{
	return is_private(to) && !vs_is_own(to);
}

// Is it the metadata service of a cloud, and the guest may not reach it?
static __always_inline bool withheld(struct bpf_sock_addr *ctx, const struct settings *s, const struct ip *to)
{
	return !s->metadata && is_metadata(to) && !is_harmless(ctx->protocol, ctx->user_port) && !vs_is_own(to);
}

// The source for a destination: the loopback address for localhost, the address
// whose subnet it is in, the primary one. false: there is no way for the family.
static __always_inline bool source(const struct settings *s, const struct ip *to, bool local, struct ip *from)
{
	if (local || is_own_loopback(s, to)) {
		*from = is_v4(to) ? v4(0) : (struct ip){};
		*from = own_loopback(s, from);
		return true;
	}
	return vs_subnet(to, from) || primary(s, is_v4(to), from);
}
