// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Options that change where a socket's packets come from or go to.

#define SO_BINDTODEVICE 25
#define SO_BINDTOIFINDEX 62
#define IP_OPTIONS 4
#define IP_ADD_MEMBERSHIP 35
#define MCAST_MSFILTER 48
#define IP_FREEBIND 15
#define IP_TRANSPARENT 19
#define IP_LOCAL_PORT_RANGE 51
#define IPV6_ADD_MEMBERSHIP 20
#define IPV6_DROP_MEMBERSHIP 21
#define IPV6_JOIN_ANYCAST 27
#define MCAST_JOIN_GROUP 42
#define IPV6_TRANSPARENT 75
#define IPV6_FREEBIND 78
#define UDP_ENCAP 100
#define TCP_ULP 31

static __always_inline bool refused(const struct settings *s, struct bpf_sockopt *ctx)
{
	switch (ctx->level) {
	case IPPROTO_IP:
		if (ctx->optname == IP_LOCAL_PORT_RANGE) // names the port that "the kernel chooses" (6.3)
			return !s->all_ports;
		return ctx->optname == IP_OPTIONS || // source routes
		       ctx->optname == IP_FREEBIND || ctx->optname == IP_TRANSPARENT;
	case IPPROTO_IPV6:
		return ctx->optname == IPV6_JOIN_ANYCAST || // gives the host an address
		       ctx->optname == IPV6_ADDRFORM || // makes an IPv4 socket of it
		       ctx->optname == IPV6_RTHDR || ctx->optname == IPV6_2292PKTOPTIONS || // source routes
		       ctx->optname == IPV6_FREEBIND || ctx->optname == IPV6_TRANSPARENT;
	case IPPROTO_UDP:
		return ctx->optname == UDP_ENCAP; // packets go to the host's IPsec
	}
	return false;
}

// What a socket is to be bound to.
enum {
	NO_DEVICE,
	LO,
	OTHER_DEVICE,
};

// The kernel takes a name up to a NUL, or to the end.
static __always_inline int device(struct bpf_sockopt *ctx)
{
	char *name = ctx->optval, *end = ctx->optval_end;
	int *index = ctx->optval;

	if (ctx->optname == SO_BINDTOIFINDEX) {
		if (ctx->optlen < sizeof(*index) || (void *)(index + 1) > ctx->optval_end)
			return OTHER_DEVICE;
		return *index == 0 ? NO_DEVICE : *index == LOOPBACK_IFINDEX ? LO : OTHER_DEVICE;
	}
	if (ctx->optlen == 0 || name + 1 > end || !name[0])
		return NO_DEVICE;
	if (ctx->optlen < 2 || name + 2 > end || name[0] != 'l' || name[1] != 'o')
		return OTHER_DEVICE;
	return ctx->optlen == 2 || (name + 3 <= end && !name[2]) ? LO : OTHER_DEVICE;
}

// Any user may bind to a device since 5.7, and could have the packets of a
// network that is none of the guest's. lo is answered as done (systemd-resolved
// does not start its stub without): the kernel is not asked, and the guest's
// localhost is all that the socket may be bound to and may reach from then on.
static __always_inline int bind_device(struct bpf_sockopt *ctx)
{
	struct note *n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	int dev = device(ctx);
	struct ip at;

	if (!n || dev == OTHER_DEVICE)
		return refuse(EPERM);
	at = bound_to(ctx->sk);
	if (dev == LO && ctx->sk->src_port && !is_own_loopback(settings(), &at))
		return refuse(EPERM); // it may have been told of elsewhere
	n->lo = dev == LO;
	ctx->optlen = -1; // done
	return 1;
}

// TCP_ULP puts another protocol onto a TCP socket, "smc" and "mptcp" among
// them; TLS in the kernel is what it is used for. The kernel takes 15 characters
// at most, up to a NUL or to the end.
static __always_inline bool is_tls(struct bpf_sockopt *ctx)
{
	char *name = ctx->optval, *end = ctx->optval_end;

	if (ctx->optlen > 15 || name + 3 > end || name[0] != 't' || name[1] != 'l' || name[2] != 's')
		return false;
	return ctx->optlen == 3 || (name + 4 <= end && !name[3]);
}

// Memberships of groups are the host's: its devices filter by them, and its
// table of them has no bound. A guest receives no multicast whether it is a
// member or not (packet.c). Joining and leaving are answered as done, as programs
// do it for things that they can do without.
static __always_inline bool is_membership(const struct bpf_sockopt *ctx)
{
	if (ctx->level == IPPROTO_IP)
		return ctx->optname >= IP_ADD_MEMBERSHIP && ctx->optname <= MCAST_MSFILTER;
	return ctx->level == IPPROTO_IPV6 &&
	       (ctx->optname == IPV6_ADD_MEMBERSHIP || ctx->optname == IPV6_DROP_MEMBERSHIP ||
		(ctx->optname >= MCAST_JOIN_GROUP && ctx->optname <= MCAST_MSFILTER));
}

// Notes what bind has to know. SO_REUSEADDR of UDP is kept from the kernel until
// then (share in bind.c); set on a bound socket it says nothing any more.
static __always_inline void take_note(struct bpf_sockopt *ctx)
{
	bool reuse = ctx->level == SOL_SOCKET && ctx->optname == SO_REUSEADDR && ctx->sk->protocol == IPPROTO_UDP;
	bool v6only = ctx->level == IPPROTO_IPV6 && ctx->optname == IPV6_V6ONLY;
	int *value = ctx->optval;
	struct note *n;
	bool on;

	if ((!reuse && !v6only) || (void *)(value + 1) > ctx->optval_end)
		return;
	on = *value != 0;
	n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, 0);
	if (n && reuse)
		n->reuse = on;
	if (n && v6only)
		n->v6only = on;
	// What was looked at is what the kernel takes, however long it is; -1: nothing.
	ctx->optlen = reuse && on ? -1 : (int)sizeof(*value);
}

// Refuses the options above.
SEC("cgroup/setsockopt")
int vs_setsockopt(struct bpf_sockopt *ctx)
{
	if (refused(settings(), ctx))
		return refuse(EPERM);
	if (ctx->level == SOL_SOCKET && (ctx->optname == SO_BINDTODEVICE || ctx->optname == SO_BINDTOIFINDEX))
		return bind_device(ctx);
	if (is_membership(ctx)) {
		ctx->optlen = -1; // done
		return 1;
	}
	if (ctx->level == IPPROTO_TCP && ctx->optname == TCP_ULP && !is_tls(ctx))
		return refuse(EPERM);
	take_note(ctx);
	// The kernel shows a page of the value. 0 takes the whole as it is; left
	// alone, a longer one would be refused with EFAULT.
	if (ctx->optlen > 4096)
		ctx->optlen = 0;
	return 1;
}
