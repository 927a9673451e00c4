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
