// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Abstract Unix sockets, on kernels before 6.7 whose security modules include
// bpf (Debian 12). One pair of programs for the whole host, as such a program
// cannot be attached to a cgroup there; it looks up whether a guest asks.
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define EPERM 1
#define MAX_GUESTS 65536
#define MAX_DEPTH 32

#define CORE __attribute__((preserve_access_index))

typedef struct {
	__u32 val;
} CORE kuid_t;

struct sock {
	kuid_t sk_uid;
} CORE;

struct socket {
	struct sock *sk;
} CORE;

struct sockaddr_un {
	char sun_path[108];
} CORE;

struct unix_address {
	int len;
	struct sockaddr_un name[0];
} CORE;

struct unix_sock {
	struct unix_address *addr;
} CORE;

// XID to the id of the guest's cgroup. An id is never used again, so what an
// earlier start left says nothing.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_GUESTS);
	__type(key, __u32);
	__type(value, __u64);
} vs_guests SEC(".maps");

// A guest's user ids are XID << 16 and on; a user of the host may have one of
// these as well, but not be in the guest's cgroup.
static __always_inline bool is_guest(__u32 context)
{
	__u64 *cgroup = bpf_map_lookup_elem(&vs_guests, &context);

	if (!cgroup)
		return false;
	for (int level = 0; level < MAX_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (id == *cgroup)
			return true;
		if (id == 0)
			return false;
	}
	return false;
}

static __always_inline int may_reach(struct sock *other)
{
	__u32 context = (__u32)bpf_get_current_uid_gid() >> 16;
	struct unix_address *addr;
	char first;

	if (context == 0 || !is_guest(context))
		return 0;
	addr = BPF_CORE_READ((struct unix_sock *)other, addr);
	if (!addr) // one of a pair, or of a listener that the guest was accepted by
		return 0;
	if (bpf_probe_read_kernel(&first, 1, &addr->name[0].sun_path[0]) == 0 && first)
		return 0; // in the file system
	return BPF_CORE_READ(other, sk_uid.val) >> 16 == context ? 0 : -EPERM;
}

// Refuses a guest to connect to an abstract socket that is not its own.
SEC("lsm/unix_stream_connect")
int BPF_PROG(vs_stream_connect, struct sock *sock, struct sock *other, struct sock *newsk, int ret)
{
	return ret ?: may_reach(other);
}

// Refuses it to connect a datagram socket to one, and to send to one.
SEC("lsm/unix_may_send")
int BPF_PROG(vs_may_send, struct socket *sock, struct socket *other, int ret)
{
	return ret ?: may_reach(other->sk);
}

char __license[] SEC("license") = "GPL";
