// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Which address and port a socket may be bound to.

// Allow, and skip the question for CAP_NET_BIND_SERVICE (5.12): that the guest
// owns the port is the answer.
#define ALLOW_LOW_PORT 3

// The address that a wildcard bind stands for: the family's primary one, and
// the guest's localhost where it has no address of that family (a machine
// without an IPv6 address can bind [::]:80 too).
static __always_inline void bind_any(struct bpf_sock_addr *ctx, const struct settings *s, struct ip *a, bool *keep)
{
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	bool four = is_v4(a), v6only = n && n->v6only;
	struct ip six;

	if (n)
		n->any = 1;
	if (!four && !v6only) {
		// [::] of a socket for both families.
		if (!primary(s, false, &six))
			four = true;
		else if (ctx->protocol == IPPROTO_UDP && ctx->user_port == 0)
			*keep = true; // it may send to either: sendmsg chooses its source
	}
	if (!primary(s, four, a)) {
		if (four)
			*a = v4(0);
		*a = own_loopback(s, a);
	}
}

// Takes note of whose socket it is, and gives it the SO_REUSEADDR that it asked
// for (sockopt.c), now that it gets a port which is the guest's.
static __always_inline void bound_by(struct bpf_sock_addr *ctx, const struct settings *s)
{
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	int on = 1;

	if (!n)
		return;
	n->context = s->context;
	n->chosen = 0;
	if (n->reuse && ctx->user_port && ctx->protocol == IPPROTO_UDP)
		bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}

// Refuses what is not the guest's own address (another guest's, the host's,
// multicast, whatever IP_FREEBIND would allow), and ports that it does not own.
static __always_inline int bind_to(struct bpf_sock_addr *ctx, struct ip *a)
{
	const struct settings *s = settings();
	bool keep = false;

	if (is_any(a))
		bind_any(ctx, s, a, &keep);
	else if (is_loopback(a))
		*a = own_loopback(s, a);
	if (keep) {
		*a = (struct ip){};
		return 1;
	}
	if (!vs_is_own(a))
		return refuse(EADDRNOTAVAIL);
	if (!is_own_loopback(s, a) && !vs_owns_port(ctx->protocol, bpf_ntohs(ctx->user_port)))
		return refuse(EACCES);
	bound_by(ctx, s);
	return ALLOW_LOW_PORT;
}

// Refuses AF_UNSPEC too, which the kernel would take for AF_INET.
SEC("cgroup/bind4")
int vs_bind4(struct bpf_sock_addr *ctx)
{
	struct ip a = v4(ctx->user_ip4);
	int verdict;

	if (ctx->user_family != AF_INET)
		return refuse(EAFNOSUPPORT);
	verdict = bind_to(ctx, &a);
	ctx->user_ip4 = a.w[3];
	return verdict;
}

// An IPv4 address in ::ffff:a.b.c.d is judged as IPv4.
SEC("cgroup/bind6")
int vs_bind6(struct bpf_sock_addr *ctx)
{
	struct ip a = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
	int verdict;

	if (ctx->user_family != AF_INET6)
		return refuse(EAFNOSUPPORT);
	verdict = bind_to(ctx, &a);
	ctx->user_ip6[0] = a.w[0];
	ctx->user_ip6[1] = a.w[1];
	ctx->user_ip6[2] = a.w[2];
	ctx->user_ip6[3] = a.w[3];
	return verdict;
}
