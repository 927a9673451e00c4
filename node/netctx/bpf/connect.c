// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Where a socket may be connected, and from which address.

static __always_inline int connect_to(struct bpf_sock_addr *ctx, struct ip *to, struct ip *from)
{
	const struct settings *s = settings();
	bool local = is_any(to) || is_loopback(to);

	// The host's localhost is out of reach: it is the guest's own.
	if (local && vs_localhost(ctx, to, true) == NOWHERE)
		return refuse(ECONNREFUSED);
	if (is_loop6(to) && !is_own_loopback(s, to)) // another guest's
		return refuse(ECONNREFUSED);
	if (is_private(to) || !source(s, to, local, from))
		return refuse(ENETUNREACH);
	return 1;
}

// Is the source the program's own choice, or that of a connection that stands?
// What a hook chose stays after connect(AF_UNSPEC), which takes the port away
// (SOCK_BINDADDR_LOCK): a resolver tries one destination after another so.
static __always_inline bool has_source(struct bpf_sock_addr *ctx, bool address)
{
	struct note *n;

	if (ctx->sk->src_port)
		return true;
	n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (address && !(n && n->chosen))
		return true;
	if (n)
		n->chosen = 1;
	return false;
}

// Refuses a destination in the host's localhost, and sets the source.
SEC("cgroup/connect4")
int vs_connect4(struct bpf_sock_addr *ctx)
{
	struct ip to = v4(ctx->user_ip4), from = {};
	struct sockaddr_in sa = {.sin_family = AF_INET};

	if (ctx->user_family != AF_INET)
		return refuse(EAFNOSUPPORT);
	if (!connect_to(ctx, &to, &from))
		return 0;
	ctx->user_ip4 = to.w[3];
	if (has_source(ctx, ctx->sk->src_ip4 != 0))
		return 1;
	sa.sin_addr.s_addr = from.w[3];
	if (bpf_bind(ctx, (struct sockaddr *)&sa, sizeof(sa)))
		return refuse(EADDRNOTAVAIL);
	return 1;
}

SEC("cgroup/connect6")
int vs_connect6(struct bpf_sock_addr *ctx)
{
	struct ip to = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}}, from = {};
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
	struct bpf_sock *sk = ctx->sk;

	if (ctx->user_family != AF_INET6)
		return refuse(EAFNOSUPPORT);
	if (!connect_to(ctx, &to, &from))
		return 0;
	ctx->user_ip6[0] = to.w[0];
	ctx->user_ip6[1] = to.w[1];
	ctx->user_ip6[2] = to.w[2];
	ctx->user_ip6[3] = to.w[3];
	if (has_source(ctx, sk->src_ip6[0] || sk->src_ip6[1] || sk->src_ip6[2] || sk->src_ip6[3]))
		return 1;
	__builtin_memcpy(&sa.sin6_addr, from.w, sizeof(from.w));
	if (bpf_bind(ctx, (struct sockaddr *)&sa, sizeof(sa)))
		return refuse(EADDRNOTAVAIL);
	return 1;
}
