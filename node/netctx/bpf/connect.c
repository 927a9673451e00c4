// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Where a socket may be connected, and from which address.

// Has the kernel's bind set the source of a socket that has none. What bind was
// told here stays when the program disconnects (connect with AF_UNSPEC, as
// getaddrinfo does between the addresses that it sorts), so that it is chosen
// anew each time. Not undone is that a socket once bound to IPv6 is for IPv6
// alone: connected to IPv4 then, it answers EAFNOSUPPORT, on which getaddrinfo
// takes a new one.
static __always_inline int set_source(struct bpf_sock_addr *ctx, const struct ip *from, bool bound)
{
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	int failed;

	if (!n)
		return refuse(EACCES);
	// Connected, it would come between the port's owner and one of its clients.
	if (borrowed(n, ctx->sk))
		return refuse(EADDRINUSE);
	if (ctx->sk->src_port)
		return 1; // bound or connected
	share(ctx, n, 0);
	if (bound && !n->chosen)
		return 1; // by the program, with IP_BIND_ADDRESS_NO_PORT
	if (ctx->sk->family == AF_INET) {
		struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = from->w[3]};

		failed = bpf_bind(ctx, (struct sockaddr *)&sa, sizeof(sa));
	} else {
		struct sockaddr_in6 sa = {.sin6_family = AF_INET6};

		__builtin_memcpy(&sa.sin6_addr, from->w, sizeof(from->w));
		failed = bpf_bind(ctx, (struct sockaddr *)&sa, sizeof(sa));
	}
	if (failed)
		return refuse(EADDRNOTAVAIL);
	n->chosen = 1;
	return 1;
}

static __always_inline int connect_to(struct bpf_sock_addr *ctx, struct ip *to, struct ip *from)
{
	const struct settings *s = settings();
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	bool local = is_any(to) || is_loopback(to);
	int found = HERE;

	if (!n)
		return refuse(EACCES);
	// The host's localhost is out of reach: it is the guest's own.
	if (local)
		found = vs_localhost(ctx, to, true);
	if (found == NOWHERE)
		return refuse(ECONNREFUSED);
	n->local = local;
	n->near = found == NEAR ? ctx->user_port : 0;
	if (is_loop6(to) && !is_own_loopback(s, to)) // another guest's
		return refuse(ECONNREFUSED);
	if (n->lo && !vs_is_own(to))
		return refuse(ENETUNREACH);
	if (closed(to) || withheld(ctx, s, to))
		return refuse(EHOSTUNREACH);
	if (!source(s, to, local, from))
		return refuse(ENETUNREACH);
	return 1;
}

// Refuses a destination in the host's localhost, and sets the source. An IPv6
// socket comes here too, when it is given an IPv4 address as such.
SEC("cgroup/connect4")
int vs_connect4(struct bpf_sock_addr *ctx)
{
	struct ip to = v4(ctx->user_ip4), from = {};

	if (ctx->user_family != AF_INET)
		return refuse(EAFNOSUPPORT);
	if (!connect_to(ctx, &to, &from))
		return 0;
	ctx->user_ip4 = to.w[3];
	return set_source(ctx, &from, ctx->sk->src_ip4 != 0);
}

SEC("cgroup/connect6")
int vs_connect6(struct bpf_sock_addr *ctx)
{
	struct ip to = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}}, from = {};
	struct bpf_sock *sk = ctx->sk;

	if (ctx->user_family != AF_INET6)
		return refuse(EAFNOSUPPORT);
	if (!connect_to(ctx, &to, &from))
		return 0;
	ctx->user_ip6[0] = to.w[0];
	ctx->user_ip6[1] = to.w[1];
	ctx->user_ip6[2] = to.w[2];
	ctx->user_ip6[3] = to.w[3];
	// Bound to an IPv4 address ([::] with a port is), it has none to come from.
	if (sk->src_port && !is_v4(&to) && sk->src_ip6[2] == bpf_htonl(0xffff) && !sk->src_ip6[0] && !sk->src_ip6[1])
		return refuse(ENETUNREACH);
	return set_source(ctx, &from, sk->src_ip6[0] || sk->src_ip6[1] || sk->src_ip6[2] || sk->src_ip6[3]);
}
