// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Options that change where a socket's packets come from or go to.

#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define SO_BINDTOIFINDEX 62
#define IP_OPTIONS 4
#define IP_FREEBIND 15
#define IP_TRANSPARENT 19
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
		       ctx->optname == IP_FREEBIND || ctx->optname == IP_TRANSPARENT;
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
// them; TLS in the kernel is what it is used for.
static __always_inline bool is_tls(struct bpf_sockopt *ctx)
{
	char *name = ctx->optval;

	return name + 3 <= (char *)ctx->optval_end && name[0] == 't' && name[1] == 'l' && name[2] == 's';
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
	// The kernel shows a page of the value. 0 takes the whole as it is; left
	// alone, a longer one would be refused with EFAULT.
	if (ctx->optlen > 4096)
		ctx->optlen = 0;
	return 1;
}
