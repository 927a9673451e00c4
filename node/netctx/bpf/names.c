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

// An answer from the service that was asked at localhost comes from localhost.
static __always_inline void show_sender(struct bpf_sock_addr *ctx, struct ip *a)
{
	const struct settings *s = settings();
	struct note *n;
	struct ip own;

	if (show_loopback(s, a))
		return;
	n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	if (!n || !n->near || n->near != (__be16)ctx->user_port)
		return;
	if (!primary(s, is_v4(a), &own) || !same(a, &own))
		return;
	*a = is_v4(a) ? v4(bpf_htonl(0x7f000001)) : (struct ip){{0, 0, 0, bpf_htonl(1)}};
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

// Was it bound to the wildcard, and is it not connected yet? Or is it no more
// connected, and has only the source left that connect chose?
static __always_inline bool shows_any(struct bpf_sock_addr *ctx)
{
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);

	if (n && n->chosen)
		return ctx->sk->state == TCP_CLOSE && !ctx->sk->src_port;
	return n && n->any && (ctx->sk->state == TCP_LISTEN || ctx->sk->state == TCP_CLOSE);
}

SEC("cgroup/getsockname4")
int vs_getsockname4(struct bpf_sock_addr *ctx)
{
	struct ip a = v4(ctx->user_ip4);

	if (shows_any(ctx))
		a = v4(0);
	else
		show_loopback(settings(), &a);
	ctx->user_ip4 = a.w[3];
	return 1;
}

SEC("cgroup/getpeername4")
int vs_getpeername4(struct bpf_sock_addr *ctx)
{
	struct ip a = v4(ctx->user_ip4);

	show_loopback(settings(), &a);
	ctx->user_ip4 = a.w[3];
	return 1;
}

SEC("cgroup/getsockname6")
int vs_getsockname6(struct bpf_sock_addr *ctx)
{
	struct ip a = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};

	if (shows_any(ctx))
		a = (struct ip){};
	else
		show_loopback(settings(), &a);
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

	show_loopback(settings(), &a);
	ctx->user_ip6[0] = a.w[0];
	ctx->user_ip6[1] = a.w[1];
	ctx->user_ip6[2] = a.w[2];
	ctx->user_ip6[3] = a.w[3];
	return 1;
}
