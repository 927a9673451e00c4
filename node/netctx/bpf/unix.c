// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Abstract Unix sockets, on kernels from 6.7 to 6.11, where Landlock cannot keep
// a guest from the host's (CVE-2020-15257). An object of its own: to look at the
// address takes the kernel's type information, which is slow to load.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define EPERM 1

struct sockaddr;

struct bpf_sock_addr_kern {
	struct sockaddr *uaddr;
	__u32 uaddrlen;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

// struct sockaddr_un: a family of two bytes, then the path. An abstract name
// begins with a zero byte.
static __always_inline int not_abstract(struct bpf_sock_addr *ctx)
{
	struct bpf_sock_addr_kern *k = bpf_cast_to_kern_ctx(ctx);
	char first;

	if (k->uaddrlen <= 2)
		return 1;
	if (bpf_probe_read_kernel(&first, 1, (char *)k->uaddr + 2) == 0 && first)
		return 1;
	bpf_set_retval(-EPERM);
	return 0;
}

// Refuses to connect to an abstract name. Which of them are the guest's own
// cannot be told: there is no hook for bind.
SEC("cgroup/connect_unix")
int vs_connect_unix(struct bpf_sock_addr *ctx)
{
	return not_abstract(ctx);
}

// Refuses to send a datagram to one.
SEC("cgroup/sendmsg_unix")
int vs_sendmsg_unix(struct bpf_sock_addr *ctx)
{
	return not_abstract(ctx);
}

char __license[] SEC("license") = "GPL";
