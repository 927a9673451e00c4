// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Which address and port a socket may be bound to.

// Allow, and skip the question for CAP_NET_BIND_SERVICE (5.12): that the guest
// owns the port is the answer.
#define ALLOW_LOW_PORT 3

// The address that a wildcard bind stands for: the family's primary one, and
// the guest's localhost where it has no address of that family (a machine
// without an IPv6 address can bind [::]:80 too). Says whether it is for more
// than localhost, so that the port has to be owned.
static __always_inline bool bind_any(struct bpf_sock_addr *ctx, const struct settings *s, const struct note *n,
				     struct ip *a, bool *keep)
{
	bool four = is_v4(a), both = !four && !n->v6only, wide = true;
	struct ip other;

	if (n->lo) {
		*a = both ? v4(0) : *a;
		*a = own_loopback(s, a);
		return false;
	}
	if (both && !primary(s, false, &other))
		four = true;
	else if (both && ctx->protocol == IPPROTO_TCP)
		// A listener is found by the other addresses too (steer.c), which takes
		// a socket that is not for IPv6 alone. Without a port it is a client more
		// often, and connects to IPv6.
		four = ctx->user_port != 0;
	else if (both && ctx->user_port == 0)
		*keep = true; // it may send to either: sendmsg chooses its source
	else if (both)
		four = s->four_first; // UDP has one address
	if (!primary(s, four, a)) {
		wide = both;
		*a = four ? v4(0) : (struct ip){};
		*a = own_loopback(s, a);
	}
	return wide;
}

// Switches a UDP socket's SO_REUSEADDR on for a port that the program named, and
// off while the kernel chooses one: it would choose a port that somebody else
// with the option has, and the later socket gets the datagrams. SO_REUSEPORT
// needs no such care: it is for sockets of one user, and no two guests have one
// in common. A bind that fails leaves the option on, and the first datagram of
// the socket may then take such a port without passing any hook (borrowed). For
// sockets without a port.
static __always_inline void share(struct bpf_sock_addr *ctx, struct note *n, __be16 port)
{
	int on = port != 0;

	if (ctx->protocol != IPPROTO_UDP || n->sharing == port)
		return;
	bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	n->sharing = port;
}

// Does the socket have a port by an SO_REUSEADDR that was meant for another one?
// Then somebody else has it as well.
static __always_inline bool borrowed(const struct note *n, struct bpf_sock *sk)
{
	return n->sharing && sk->src_port && n->sharing != bpf_htons(sk->src_port);
}

// A resolver names the UDP port that it asks from, at random (bind9, dig -b). One
// that the guest does not own becomes one that the kernel chooses: the guest
// gets no more than any of its sockets does, and the resolver works. Below 1024 a
// number is a service's, which had better fail than be somewhere else.
static __always_inline bool is_client(struct bpf_sock_addr *ctx, const struct settings *s, const struct ip *a)
{
	__u32 port = bpf_ntohs(ctx->user_port);

	return ctx->protocol == IPPROTO_UDP && port >= 1024 && !is_loopback(a) && !is_own_loopback(s, a) &&
	       !vs_owns_port(IPPROTO_UDP, port);
}

static __always_inline int refuse_port(struct bpf_sock_addr *ctx)
{
	struct counters *c = bpf_get_local_storage(&vs_traffic, 0);

	c->refused++;
	c->refused_port = ctx->protocol << 16 | bpf_ntohs(ctx->user_port);
	return refuse(EACCES);
}

static __always_inline void by_program(struct bpf_sock_addr *ctx, struct note *n, __be16 port)
{
	if (ctx->sk->src_port)
		return; // bound already: EINVAL
	n->chosen = 0;
	n->bound = ctx->protocol == IPPROTO_TCP;
	share(ctx, n, n->reuse ? port : 0);
}

// Refuses what is not the guest's own address (another guest's, the host's,
// multicast, whatever IP_FREEBIND would allow), and ports that it does not own.
static __always_inline int bind_to(struct bpf_sock_addr *ctx, struct ip *a)
{
	const struct settings *s = settings();
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	bool keep = false, wide;

	if (!n)
		return refuse(EACCES);
	n->any = is_any(a);
	if (!n->lo && is_client(ctx, s, a))
		ctx->user_port = 0;
	if (n->any) {
		wide = bind_any(ctx, s, n, a, &keep);
	} else {
		if (is_loopback(a))
			*a = own_loopback(s, a);
		wide = !is_own_loopback(s, a);
	}
	if (keep) {
		*a = (struct ip){};
		by_program(ctx, n, 0);
		return 1;
	}
	if (!vs_is_own(a) || (n->lo && !is_own_loopback(s, a)))
		return refuse(EADDRNOTAVAIL);
	if (wide && !vs_owns_port(ctx->protocol, bpf_ntohs(ctx->user_port)))
		return refuse_port(ctx);
	by_program(ctx, n, ctx->user_port);
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
