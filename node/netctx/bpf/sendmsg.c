// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Datagrams of sockets that are not connected.

// Refuses a source that is not the guest's (IP_PKTINFO says any), and as
// destination the host's localhost and private addresses of guests.
static __always_inline int send_to(struct bpf_sock_addr *ctx, struct ip *to, struct ip *from)
{
	const struct settings *s = settings();
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	bool local = is_any(to) || is_loopback(to);

	if (!n)
		return refuse(EACCES);
	// IP_PKTINFO may name 127.0.0.53 as the source of an answer.
	if (is_loopback(from))
		*from = own_loopback(s, from);
	// A connected socket comes here when it sends with IP_PKTINFO, with family 0
	// and address 0: that is no wildcard, and there is nothing to rewrite.
	if (ctx->user_family == AF_UNSPEC)
		return is_any(from) || vs_is_own(from) ? 1 : refuse(EADDRNOTAVAIL);
	if (local) {
		int found = vs_localhost(ctx, to, false);

		if (found == NOWHERE)
			return refuse(ECONNREFUSED);
		if (found == NEAR)
			n->near = ctx->user_port;
	}
	if (n->lo && !vs_is_own(to))
		return refuse(ENETUNREACH);
	if (closed(to) || withheld(ctx, s, to))
		return refuse(EHOSTUNREACH);
	if (!is_any(from) && is_v4(from) != is_v4(to)) // the socket is bound to the other family
		return refuse(ENETUNREACH);
	// Bound to the wildcard, it speaks to localhost from localhost; but not to one
	// that is connected to the address that the wildcard stands for (NEAR).
	if (local && n->any && !is_any(from)) {
		__u32 ports = (__u32)(__be16)ctx->user_port << 16 | bpf_htons(ctx->sk->src_port);
		int who = vs_sender(ctx, to, from, ports);

		if (who == GONE)
			*from = is_v4(to) ? v4(0) : (struct ip){};
	}
	if (is_any(from))
		return source(s, to, local, from) ? 1 : refuse(ENETUNREACH);
	return vs_is_own(from) ? 1 : refuse(EADDRNOTAVAIL);
}

SEC("cgroup/sendmsg4")
int vs_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct ip to = v4(ctx->user_ip4), from = v4(ctx->msg_src_ip4);

	if (!send_to(ctx, &to, &from))
		return 0;
	ctx->user_ip4 = to.w[3];
	ctx->msg_src_ip4 = from.w[3];
	return 1;
}

SEC("cgroup/sendmsg6")
int vs_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct ip to = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
	struct ip from = {{ctx->msg_src_ip6[0], ctx->msg_src_ip6[1], ctx->msg_src_ip6[2], ctx->msg_src_ip6[3]}};

	if (!send_to(ctx, &to, &from))
		return 0;
	ctx->user_ip6[0] = to.w[0];
	ctx->user_ip6[1] = to.w[1];
	ctx->user_ip6[2] = to.w[2];
	ctx->user_ip6[3] = to.w[3];
	ctx->msg_src_ip6[0] = from.w[0];
	ctx->msg_src_ip6[1] = from.w[1];
	ctx->msg_src_ip6[2] = from.w[2];
	ctx->msg_src_ip6[3] = from.w[3];
	return 1;
}
