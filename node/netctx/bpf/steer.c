// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// How a TCP listener on the wildcard is found by every address of its guest. It
// is bound to one, and the kernel has no word for several; so it is kept in a
// map by the others (localhost among them), and a program that the network
// namespace asks before it looks for a listener (sk_lookup) gives it the
// connections to these. UDP has no callback that could enter its sockets.

// Listeners that share a port (SO_REUSEPORT) have one place each, so that the
// others are found when one is closed; the kernel chooses among those that live.
#define PLACES 4

// In this place is a listener that is bound to just this address.
#define EXACT PLACES

// For one guest, so that it leaves the others room.
#define MAX_LISTENERS 512

struct listener {
	struct ip addr; // 127.x.y.0: the whole of the guest's IPv4 localhost
	__u32 port;
	__u32 place;
};

// The kernel removes a socket when it ceases to listen.
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 131072);
	__type(key, struct listener);
	__type(value, __u64);
} vs_listeners SEC(".maps");

// Listeners of each guest, by its cgroup.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u32);
} vs_listening SEC(".maps");

static __always_inline bool is_loop4(const struct ip *a)
{
	return is_v4(a) && is_loopback(a);
}

// Enters the listener by an address. When all places are taken, the latest one
// gets one: what is older closes first.
__noinline int vs_enter(struct bpf_sock_ops *ctx, const struct ip *a, int place)
{
	struct listener l = {.port = ctx->local_port};

	if (!a)
		return 0;
	l.addr = *a;
	l.place = place;
	if (place == EXACT)
		return bpf_sock_hash_update(ctx, &vs_listeners, &l, BPF_ANY);
	for (int i = 0; i < PLACES; i++) {
		l.place = i;
		if (!bpf_sock_hash_update(ctx, &vs_listeners, &l, BPF_NOEXIST))
			return 0;
	}
	l.place = bpf_get_socket_cookie(ctx) % PLACES;
	return bpf_sock_hash_update(ctx, &vs_listeners, &l, BPF_ANY);
}

// Is the guest below its bound? Counts the listener if so.
static __always_inline bool counted(struct bpf_sock_ops *ctx, __u64 cgroup)
{
	__u32 zero = 0, *n;

	bpf_map_update_elem(&vs_listening, &cgroup, &zero, BPF_NOEXIST);
	n = bpf_map_lookup_elem(&vs_listening, &cgroup);
	if (!n || *n >= MAX_LISTENERS)
		return false;
	__sync_fetch_and_add(n, 1);
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG); // tells when it ceases
	return true;
}

// A port that the guest does not own can be somebody else's on its other
// addresses: of such a one it is found on localhost only.
static __always_inline void enter_all(struct bpf_sock_ops *ctx, const struct settings *s, const struct note *n,
				      const struct ip *bound)
{
	bool four = ctx->family == AF_INET || is_v4(bound), six = ctx->family == AF_INET6 && !n->v6only && four;
	bool wide = !n->lo && vs_owns_port(IPPROTO_TCP, ctx->local_port);
	struct ip a;

	six |= !four;
	if (four) {
		a = v4(s->loop4.w[3]);
		vs_enter(ctx, &a, 0);
	}
	if (six) {
		a = s->loop6;
		vs_enter(ctx, &a, 0);
	}
	for (int i = 0; wide && i < MAX_ADDRESSES && i < s->addresses_n; i++) {
		a = s->addresses[i].addr;
		if ((is_v4(&a) ? four : six) && !same(&a, bound))
			vs_enter(ctx, &a, 0);
	}
}

// Enters listeners. These hooks refuse nothing, and leave what the kernel asks
// in passing (timeouts, windows) as it is.
SEC("sockops")
int vs_sockops(struct bpf_sock_ops *ctx)
{
	const struct settings *s = settings();
	__u64 cgroup = s->cgroup;
	struct bpf_sock *sk;
	struct note *n;
	struct ip a;
	__u32 *count;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		sk = ctx->sk;
		if (!sk)
			break;
		n = bpf_sk_storage_get(&vs_notes, sk, NULL, 0);
		a = v4(*(volatile __u32 *)&ctx->local_ip4);
		for (int i = 0; i < 4 && ctx->family == AF_INET6; i++)
			a.w[i] = *(volatile __u32 *)&ctx->local_ip6[i];
		// Never bound, it is on every address already.
		if (!n || is_any(&a) || !counted(ctx, cgroup))
			break;
		if (n->any)
			enter_all(ctx, s, n, &a);
		else
			vs_enter(ctx, &a, EXACT);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[0] != TCP_LISTEN)
			break;
		count = bpf_map_lookup_elem(&vs_listening, &cgroup);
		if (count && *count)
			__sync_fetch_and_add(count, -1);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ctx, 0); // inherited of the listener
		break;
	}
	ctx->reply = -1;
	return 1;
}

// Leads a connection to the listener that was entered by its destination. Only
// a guest's own addresses lead to it, so nothing of the host's or of another
// guest's goes this way; what the packet is allowed is for the hooks of the
// listener's cgroup, as ever. A guest's localhost that is asked from the host's,
// as who has no reason to hide it does, refuses here: those hooks can only drop.
SEC("sk_lookup")
int vs_steer(struct bpf_sk_lookup *ctx)
{
	struct listener l = {.port = ctx->local_port, .place = EXACT};
	struct bpf_sock *sk;
	struct ip to, from;
	__be32 four;
	bool foreign;

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	// All are read, as the compiler would else compute with the pointer, which
	// the verifier does not have.
	four = *(volatile __u32 *)&ctx->local_ip4;
	for (int i = 0; i < 4; i++)
		to.w[i] = *(volatile __u32 *)&ctx->local_ip6[i];
	if (ctx->family == AF_INET)
		to = v4(four);
	from = v4(*(volatile __u32 *)&ctx->remote_ip4);
	foreign = is_loop4(&to) && is_loop4(&from) && ((to.w[3] ^ from.w[3]) & bpf_htonl(0xffffff00));
	// A listener at this very address comes before one at all of them.
	l.addr = to;
	sk = bpf_map_lookup_elem(&vs_listeners, &l);
	if (sk) {
		bpf_sk_release(sk);
		return foreign ? SK_DROP : SK_PASS;
	}
	if (is_loop4(&to))
		l.addr.w[3] &= bpf_htonl(0xffffff00);
	for (int i = 0; i < PLACES; i++) {
		l.place = i;
		sk = bpf_map_lookup_elem(&vs_listeners, &l);
		if (sk) {
			if (!foreign)
				bpf_sk_assign(ctx, sk, 0);
			bpf_sk_release(sk);
			return foreign ? SK_DROP : SK_PASS;
		}
	}
	return SK_PASS;
}
