// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Options that change where a socket's packets come from or go to.

#define SOL_SOCKET 1
#define SO_REUSEADDR 2
#define SO_BINDTODEVICE 25
#define SO_BINDTOIFINDEX 62
#define IP_OPTIONS 4
#define IP_FREEBIND 15
#define IP_TRANSPARENT 19
#define IP_LOCAL_PORT_RANGE 51
#define IPV6_TRANSPARENT 75
#define IPV6_FREEBIND 78
#define UDP_ENCAP 100
#define TCP_ULP 31

static __always_inline bool refused(struct bpf_sockopt *ctx)
{
	switch (ctx->level) {
	case SOL_SOCKET:
		// Any user may bind to a device since 5.7.
		return ctx->optname == SO_BINDTODEVICE || ctx->optname == SO_BINDTOIFINDEX;
	case IPPROTO_IP:
		return ctx->optname == IP_OPTIONS || // source routes
		       ctx->optname == IP_FREEBIND || ctx->optname == IP_TRANSPARENT ||
		       // chooses which "ephemeral" port one gets (6.3)
		       (ctx->optname == IP_LOCAL_PORT_RANGE && !settings()->all_ports);
	case IPPROTO_IPV6:
		return ctx->optname == IPV6_ADDRFORM || // makes an IPv4 socket of it
		       ctx->optname == IPV6_RTHDR || ctx->optname == IPV6_2292PKTOPTIONS || // source routes
		       ctx->optname == IPV6_FREEBIND || ctx->optname == IPV6_TRANSPARENT;
	case IPPROTO_UDP:
		return ctx->optname == UDP_ENCAP; // packets go to the host's IPsec
	}
	return false;
}

// TCP_ULP puts another protocol onto a TCP socket, "smc" and "mptcp" among
// them; TLS in the kernel is what it is used for. The kernel looks at 15
// characters, and a value of more than a page it would read anew from the
// program's memory, which may have changed since.
static __always_inline bool is_tls(struct bpf_sockopt *ctx)
{
	char *name = ctx->optval;

	if (ctx->optlen > 15 || name + 3 > (char *)ctx->optval_end || name[0] != 't' || name[1] != 'l' || name[2] != 's')
		return false;
	return ctx->optlen == 3 || (name + 4 <= (char *)ctx->optval_end && name[3] == 0);
}

// With SO_REUSEADDR on both sides two UDP sockets share a port, and the later
// one receives: whoever is given an "ephemeral" port that another guest's service
// has would take its datagrams. So it is set on sockets only that have a port of
// the guest's own (bind_to); until then a note is made of it, and no more.
static __always_inline bool postpone_reuse(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	int *on = ctx->optval;
	struct note *n;

	if (ctx->level != SOL_SOCKET || ctx->optname != SO_REUSEADDR || !sk || sk->protocol != IPPROTO_UDP)
		return false;
	if (settings()->all_ports || (void *)(on + 1) > ctx->optval_end)
		return false;
	if (sk->src_port && vs_owns_port(IPPROTO_UDP, sk->src_port))
		return false;
	n = bpf_sk_storage_get(&vs_notes, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (n)
		n->reuse = *on != 0;
	return true;
}

// Refuses the options above, and takes note of IPV6_V6ONLY for bind.
SEC("cgroup/setsockopt")
int vs_setsockopt(struct bpf_sockopt *ctx)
{
	if (refused(ctx))
		return refuse(EPERM);
	if (ctx->level == IPPROTO_TCP && ctx->optname == TCP_ULP && !is_tls(ctx))
		return refuse(EPERM);
	if (ctx->level == IPPROTO_IPV6 && ctx->optname == IPV6_V6ONLY) {
		int *on = ctx->optval;
		struct note *n;

		if ((void *)(on + 1) <= ctx->optval_end) {
			n = bpf_sk_storage_get(&vs_notes, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
			if (n)
				n->v6only = *on != 0;
		}
	}
	if (postpone_reuse(ctx)) {
		ctx->optlen = -1; // done, without the kernel
		return 1;
	}
	// The kernel shows a page of the value. 0 takes the whole as it is; left
	// alone, a longer one would be refused with EFAULT.
	if (ctx->optlen > 4096)
		ctx->optlen = 0;
	return 1;
}
