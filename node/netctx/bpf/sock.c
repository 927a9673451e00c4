// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// What sockets there are, and a last look at what they were bound to.

// Refuses every IP socket but TCP, UDP and ping. UDP-Lite, SCTP, DCCP, L2TP and
// raw sockets have binds and connects that pass no hook; MPTCP and SMC have the
// kernel open connections of its own. EPROTONOSUPPORT is what a kernel without
// MPTCP answers: Go then falls back to TCP for good.
static __always_inline bool allowed(const struct bpf_sock *sk)
{
	if (sk->type == SOCK_STREAM)
		return sk->protocol == IPPROTO_TCP;
	return sk->type == SOCK_DGRAM && (sk->protocol == IPPROTO_UDP || sk->protocol == IPPROTO_ICMP ||
					  sk->protocol == IPPROTO_ICMPV6);
}

static __always_inline int kind(const struct bpf_sock *sk)
{
	if (sk->type == SOCK_STREAM)
		return 0;
	return sk->protocol == IPPROTO_UDP ? 1 : 2;
}

// As long as the kernel keeps a connection in TIME_WAIT.
#define PERIOD 60000000000ULL

static __always_inline __u64 lingering(const struct holding *h)
{
	__u64 now = bpf_ktime_get_ns() / PERIOD;

	if (h->period == now)
		return h->lingering + h->lingered;
	return h->period + 1 == now ? h->lingering : 0;
}

static __always_inline void linger(struct holding *h)
{
	__u64 now = bpf_ktime_get_ns() / PERIOD;

	if (h->period != now) {
		h->lingered = h->period + 1 == now ? h->lingering : 0;
		h->lingering = 0;
		h->period = now;
	}
	__sync_fetch_and_add(&h->lingering, 1);
}

// Counts a socket. Ephemeral ports are one pool of the whole host, for each
// protocol (for ping, its identifiers): a guest that had all of them would keep
// everybody else from making connections.
static __always_inline bool take_one(const struct settings *s, const struct bpf_sock *sk)
{
	struct holding *h, fresh = {.cgroup = s->cgroup};
	__u32 context = s->context;
	__u64 have;

	if (!s->sockets)
		return true; // not written yet: all that a socket is for is refused
	h = bpf_map_lookup_elem(&vs_holdings, &context);
	if (!h || h->cgroup != s->cgroup) {
		bpf_map_update_elem(&vs_holdings, &context, &fresh, BPF_ANY);
		h = bpf_map_lookup_elem(&vs_holdings, &context);
		if (!h)
			return false;
	}
	have = __sync_fetch_and_add(&h->open[kind(sk)], 1);
	if (kind(sk) == 0)
		have += lingering(h);
	if (have < s->sockets)
		return true;
	__sync_fetch_and_add(&h->open[kind(sk)], -1);
	return false;
}

// Begins the socket's note, while nothing else has used up the memory that the
// kernel grants a socket (net.core.optmem_max).
SEC("cgroup/sock_create")
int vs_create(struct bpf_sock *sk)
{
	struct note *n;

	if (!allowed(sk))
		return refuse(sk->type == SOCK_RAW ? EPERM : EPROTONOSUPPORT);
	n = bpf_sk_storage_get(&vs_notes, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!n)
		return refuse(ENOMEM);
	n->context = settings()->context;
	if (!take_one(settings(), sk))
		return refuse(ENOBUFS);
	n->counted = 1;
	return 1;
}

// A port that the program bound stays taken behind a closed connection, and one
// that was listened on behind those that were accepted there.
SEC("cgroup/sock_release")
int vs_release(struct bpf_sock *sk)
{
	struct note *n = bpf_sk_storage_get(&vs_notes, sk, NULL, 0);
	const struct settings *s = settings();
	__u32 context = s->context;
	struct holding *h;

	if (!n || !n->counted)
		return 1; // accepted
	n->counted = 0;
	h = bpf_map_lookup_elem(&vs_holdings, &context);
	if (!h || h->cgroup != s->cgroup)
		return 1;
	__sync_fetch_and_add(&h->open[kind(sk)], -1);
	if (kind(sk) == 0 && (sk->state == TCP_LISTEN || (n->bound && sk->state != TCP_CLOSE)))
		linger(h);
	return 1;
}

// A UDP socket bound to any address and an ephemeral port is no more than one
// that was never bound: the packet hooks give it the guest's packets only.
static __always_inline int bound(const struct bpf_sock *sk, const struct ip *a)
{
	if (vs_is_own(a) || (is_any(a) && sk->protocol == IPPROTO_UDP))
		return 1;
	return refuse(EADDRNOTAVAIL);
}

// Refuses what the bind hooks let through by mistake.
SEC("cgroup/post_bind4")
int vs_post_bind4(struct bpf_sock *sk)
{
	struct ip a = v4(sk->src_ip4);

	return bound(sk, &a);
}

SEC("cgroup/post_bind6")
int vs_post_bind6(struct bpf_sock *sk)
{
	struct ip a = {{sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]}};

	return bound(sk, &a);
}
