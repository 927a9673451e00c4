// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Where a guest's localhost leads.

enum { NOBODY, EXACTLY, SOMEBODY };

// Who receives at this address and port? EXACTLY: a socket bound to just this
// address, so one of its owner. SOMEBODY: a socket bound to every address; of
// the host, most likely.
static __always_inline int listens(struct bpf_sock_addr *ctx, const struct ip *a, bool *both_families)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	struct ip at4, at6;
	__u32 size;

	if (is_v4(a)) {
		t.ipv4.daddr = a->w[3];
		t.ipv4.dport = ctx->user_port;
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.daddr, a->w, sizeof(t.ipv6.daddr));
		t.ipv6.dport = ctx->user_port;
		size = sizeof(t.ipv6);
	}
	if (ctx->protocol == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return NOBODY;
	*both_families = sk->family == AF_INET6;
	// Both are read, as the compiler would else compute with the pointer, which
	// the verifier does not have.
	at4 = v4(sk->src_ip4);
	for (int i = 0; i < 4; i++)
		at6.w[i] = *(volatile __u32 *)&sk->src_ip6[i];
	bpf_sk_release(sk);
	return same(is_v4(a) ? &at4 : &at6, a) ? EXACTLY : SOMEBODY;
}

// Turns localhost into the guest's loopback address, or into its primary one if
// only a wildcard listener, which is bound there, has the port. Refuses to lead
// a connection to a wildcard listener of the host, which would take the guest
// for a local user. near says that the primary address was taken.
static __always_inline bool to_localhost(struct bpf_sock_addr *ctx, const struct settings *s, struct ip *a, bool may_cross, bool *near)
{
	bool tcp = ctx->protocol == IPPROTO_TCP, both = false;
	struct ip at;
	int who;

	*a = own_loopback(s, a);
	if (!tcp && ctx->protocol != IPPROTO_UDP) // ping
		return true;
	who = listens(ctx, a, &both);
	if (who == EXACTLY)
		return true;
	if (owns_port(s, ctx->protocol, bpf_ntohs(ctx->user_port))) {
		if (primary(s, is_v4(a), &at) && listens(ctx, &at, &both) == EXACTLY) {
			*a = at;
			*near = true;
			return true;
		}
		// [::] for both families is bound to the IPv4 address.
		if (!is_v4(a) && may_cross && primary(s, true, &at) &&
		    listens(ctx, &at, &both) == EXACTLY && both) {
			*a = at;
			return true;
		}
	}
	// A UDP socket that was never bound is found so too, and may be the guest's:
	// the packet hook looks whose it is.
	return !(tcp && who == SOMEBODY);
}

// The source for a destination: the loopback address for localhost, the address
// whose subnet it is in, the primary one. None: there is no way for the family.
static __always_inline bool source(const struct settings *s, const struct ip *to, bool local, struct ip *from)
{
	bool four = is_v4(to);

	if (local) {
		*from = four ? v4(0) : (struct ip){};
		*from = own_loopback(s, from);
		return true;
	}
	for (int i = 0; i < MAX_ADDRESSES && i < s->addresses_n; i++) {
		const struct own_address *o = &s->addresses[i];

		if (is_v4(&o->addr) == four && !((o->addr.w[0] ^ to->w[0]) & o->mask.w[0]) &&
		    !((o->addr.w[1] ^ to->w[1]) & o->mask.w[1]) && !((o->addr.w[2] ^ to->w[2]) & o->mask.w[2]) &&
		    !((o->addr.w[3] ^ to->w[3]) & o->mask.w[3])) {
			*from = o->addr;
			return true;
		}
	}
	return primary(s, four, from);
}
