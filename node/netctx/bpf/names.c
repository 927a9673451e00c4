// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// What a program is told of addresses: what it would be told on a machine of
// its own. These hooks refuse nothing.

// The localhost that stands for one of the guest's loopback addresses.
static __always_inline bool show_loopback(const struct settings *s, struct ip *a)
{
	if (!is_own_loopback(s, a))
		return false;
	if (is_v4(a))
		a->w[3] = bpf_htonl(0x7f000000) | (a->w[3] & bpf_htonl(0xff));
	else
		*a = (struct ip){{0, 0, 0, bpf_htonl(1)}};
	return true;
}

static __always_inline struct ip localhost(const struct ip *a)
{
	return is_v4(a) ? v4(bpf_htonl(0x7f000001)) : (struct ip){{0, 0, 0, bpf_htonl(1)}};
}

// Has a client that was bound to the wildcard asked for localhost? Its source
// was settled when it was bound, and is the guest's address. On a machine it is
// localhost, and lists of who may do what are made for that.
static __always_inline bool from_localhost(struct bpf_sock_addr *ctx, const struct settings *s, const struct ip *peer)
{
	__u32 ports = (__u32)(__be16)ctx->user_port << 16 | bpf_htons(ctx->sk->src_port);
	struct ip at = local_end(s, ctx->sk, peer);
	int who;

	if (!vs_is_own(peer))
		return false;
	if (ctx->protocol == IPPROTO_UDP)
		return vs_sender(ctx, peer, &at, ports) == (UNNAMED | LOCAL);
	// Accepted sockets have no note. Of a client that has gone away nobody knows;
	// it was the guest's, or the host's.
	if (!is_own_loopback(s, &at) || bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0))
		return false;
	who = vs_sender(ctx, peer, &at, ports);
	return who == GONE || (who & ~LOCAL) == UNNAMED;
}

// An answer from the service that was asked at localhost comes from localhost.
static __always_inline void show_sender(struct bpf_sock_addr *ctx, struct ip *a)
{
	const struct settings *s = settings();
	struct note *n;
	struct ip own;

	if (show_loopback(s, a))
		return;
	n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	if ((n && n->near && n->near == (__be16)ctx->user_port && primary(s, is_v4(a), &own) && same(a, &own)) ||
	    from_localhost(ctx, s, a))
		*a = localhost(a);
}

SEC("cgroup/recvmsg4")
int vs_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct ip a = v4(ctx->user_ip4);

	show_sender(ctx, &a);
	ctx->user_ip4 = a.w[3];
	return 1;
}

SEC("cgroup/recvmsg6")
int vs_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct ip a = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};

	show_sender(ctx, &a);
	ctx->user_ip6[0] = a.w[0];
	ctx->user_ip6[1] = a.w[1];
	ctx->user_ip6[2] = a.w[2];
	ctx->user_ip6[3] = a.w[3];
	return 1;
}

// A socket that was bound to the wildcard is there until it is connected, and
// one that is no more connected, and has only the source left that connect chose.
static __always_inline void show_bound(struct bpf_sock_addr *ctx, struct ip *a)
{
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	bool any = n && n->any, closed = ctx->sk->state == TCP_CLOSE;

	if (n && n->chosen)
		any = closed && !ctx->sk->src_port;
	if (any && (closed || ctx->sk->state == TCP_LISTEN))
		*a = is_v4(a) && ctx->sk->family == AF_INET ? v4(0) : (struct ip){};
	else if (any && n->local)
		*a = localhost(a);
	else
		show_loopback(settings(), a);
}

SEC("cgroup/getsockname4")
int vs_getsockname4(struct bpf_sock_addr *ctx)
{
	struct ip a = v4(ctx->user_ip4);

	show_bound(ctx, &a);
	ctx->user_ip4 = a.w[3];
	return 1;
}

SEC("cgroup/getpeername4")
int vs_getpeername4(struct bpf_sock_addr *ctx)
{
	struct ip a = v4(ctx->user_ip4);

	show_sender(ctx, &a);
	ctx->user_ip4 = a.w[3];
	return 1;
}

SEC("cgroup/getsockname6")
int vs_getsockname6(struct bpf_sock_addr *ctx)
{
	struct ip a = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};

	show_bound(ctx, &a);
	ctx->user_ip6[0] = a.w[0];
	ctx->user_ip6[1] = a.w[1];
	ctx->user_ip6[2] = a.w[2];
	ctx->user_ip6[3] = a.w[3];
	return 1;
}

SEC("cgroup/getpeername6")
int vs_getpeername6(struct bpf_sock_addr *ctx)
{
	struct ip a = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};

	show_sender(ctx, &a);
	ctx->user_ip6[0] = a.w[0];
	ctx->user_ip6[1] = a.w[1];
	ctx->user_ip6[2] = a.w[2];
	ctx->user_ip6[3] = a.w[3];
	return 1;
}
