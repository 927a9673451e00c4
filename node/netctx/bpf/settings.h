// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// What a guest owns, and the questions every hook asks about it.
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// asm/errno.h and sys/socket.h are the machine's; these numbers are Linux's.
#define EPERM 1
#define ENOMEM 12
#define EACCES 13
#define EAFNOSUPPORT 97
#define EPROTONOSUPPORT 93
#define EADDRINUSE 98
#define EADDRNOTAVAIL 99
#define ENETUNREACH 101
#define ENOBUFS 105
#define ECONNREFUSED 111
#define EHOSTUNREACH 113
#define AF_UNSPEC 0
#define AF_INET 2
#define AF_INET6 10
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOL_SOCKET 1
#define SO_REUSEADDR 2

// The first device of every network namespace.
#define LOOPBACK_IFINDEX 1

#define MAX_ADDRESSES 16
#define MAX_PORTS 64

// An address of either family; IPv4 as ::ffff:a.b.c.d, as IPv6 sockets say it.
struct ip {
	__be32 w[4];
};

struct own_address {
	struct ip addr;
	struct ip mask; // of its subnet: which source goes with which destination
};

// Each is protocol << 16 | port.
struct own_ports {
	__u32 first;
	__u32 last;
};

struct settings {
	__u64 cgroup;     // id of the guest's cgroup
	struct ip loop4;  // ::ffff:127.x.y.0; the guest has 127.x.y.0/24
	struct ip loop6;  // what ::1 stands for
	struct ip first4; // what 0.0.0.0 stands for; all zero: no IPv4
	struct ip first6; // what :: stands for; all zero: no IPv6
	__u32 context;    // XID
	__u32 all_ports;  // the addresses are the guest's alone
	__u32 four_first; // the first of all addresses is one of IPv4
	__u32 addresses_n;
	__u32 ports_n;
	__u32 sockets;  // how many it may have of each protocol
	__u32 metadata; // it may reach the cloud's metadata service
	struct own_address addresses[MAX_ADDRESSES];
	struct own_ports ports[MAX_PORTS];
};

struct traffic {
	__u64 packets;
	__u64 bytes;
};

struct counters {
	struct traffic v4_in, v4_out, v6_in, v6_out;
	__u64 refused;      // binds to ports of its addresses that it does not own
	__u64 refused_port; // the last of them, as in own_ports
};

// A key of one __u64 makes one storage a cgroup, whatever the hook (5.9).
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct settings);
} vs_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct counters);
} vs_traffic SEC(".maps");

// What is remembered of one socket, from its making on. Accepted ones have none.
struct note {
	__u32 context;  // XID of the guest that made it
	__u8 v6only;    // IPV6_V6ONLY was set
	__u8 any;       // bound to the wildcard: the program is told that it is
	__u8 chosen;    // its source was chosen in connect, not bound by the program
	__u8 reuse;     // UDP: the program asked for SO_REUSEADDR
	__u8 lo;        // the program asked to be bound to lo
	__u8 local;     // connected to localhost
	__u8 counted;   // it is one of the guest's in vs_holdings
	__u8 bound;     // TCP: by the program, so that its port is nobody else's
	__be16 near;    // sent to this port of localhost, which is served on the primary address
	__be16 sharing; // UDP: the port for which SO_REUSEADDR is on
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct note);
} vs_notes SEC(".maps");

// How many sockets a guest has open, and which ports are still taken behind
// sockets that it has closed.
struct holding {
	__u64 cgroup;
	__u64 open[3]; // TCP, UDP, ping
	__u64 period;
	__u64 lingering; // of this period
	__u64 lingered;  // of the one before
};

// By XID. The programs make an entry when the guest opens its first socket; that
// of an earlier start is recognized by its cgroup.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct holding);
} vs_holdings SEC(".maps");

// The verdict that makes the system call fail with this error (5.18).
static __always_inline int refuse(int err)
{
	bpf_set_retval(-err);
	return 0;
}

static __always_inline struct settings *settings(void)
{
	return bpf_get_local_storage(&vs_settings, 0);
}

static __always_inline struct ip v4(__be32 addr)
{
	return (struct ip){{0, 0, bpf_htonl(0xffff), addr}};
}

static __always_inline bool is_v4(const struct ip *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool same(const struct ip *a, const struct ip *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

// 0.0.0.0 or ::
static __always_inline bool is_any(const struct ip *a)
{
	return a->w[3] == 0 && a->w[0] == 0 && a->w[1] == 0 && (a->w[2] == 0 || a->w[2] == bpf_htonl(0xffff));
}

// 127.0.0.0/8 or ::1
static __always_inline bool is_loopback(const struct ip *a)
{
	if (is_v4(a))
		return (a->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == 0 && a->w[3] == bpf_htonl(1);
}

// fd76:7365:7276:6572::/64, where every guest's loop6 lies.
static __always_inline bool is_loop6(const struct ip *a)
{
	return a->w[0] == bpf_htonl(0xfd767365) && a->w[1] == bpf_htonl(0x72766572);
}

// 100.64.0.0/16 or fd76:7365:7276:1cad::/64: the private addresses of guests in
// mode nat (node/nat/address.go).
static __always_inline bool is_private(const struct ip *a)
{
	if (is_v4(a))
		return (a->w[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0x64400000);
	return a->w[0] == bpf_htonl(0xfd767365) && a->w[1] == bpf_htonl(0x72761cad);
}

// The metadata services of clouds, which answer with the host's credentials
// whoever asks from its address: all of 169.254.0.0/16 (every cloud but those
// that follow), Alibaba's, Azure's and Oracle's older one; fd00:ec2::/32 of AWS,
// Google's, Scaleway's and OpenStack's. node/nat/metadata.go has the same list.
static __always_inline bool is_metadata(const struct ip *a)
{
	if (is_v4(a))
		return (a->w[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000) || a->w[3] == bpf_htonl(0x646464c8) ||
		       a->w[3] == bpf_htonl(0xa83f8110) || a->w[3] == bpf_htonl(0xc00000c0);
	if (a->w[0] == bpf_htonl(0xfd000ec2))
		return true;
	if (a->w[1] || a->w[2])
		return false;
	return (a->w[0] == bpf_htonl(0xfd2000ce) && a->w[3] == bpf_htonl(0x254)) ||
	       (a->w[0] == bpf_htonl(0xfd000042) && a->w[3] == bpf_htonl(0x42)) ||
	       (a->w[0] == bpf_htonl(0xfe800000) && a->w[3] == bpf_htonl(0xa9fea9fe));
}

// What is served at the same addresses and tells nothing of the host: the
// resolvers of Azure, Google and AWS, and AWS's time.
static __always_inline bool is_harmless(__u32 proto, __be16 port)
{
	return port == bpf_htons(53) || (port == bpf_htons(123) && proto == IPPROTO_UDP);
}

// Is it the guest's own localhost, as the kernel sees it?
static __always_inline bool is_own_loopback(const struct settings *s, const struct ip *a)
{
	if (is_v4(a))
		return (a->w[3] & bpf_htonl(0xffffff00)) == s->loop4.w[3] && s->loop4.w[3];
	return is_loop6(a) && same(a, &s->loop6);
}

// The guest's loopback address for one of 127.0.0.0/8, ::1, 0.0.0.0 or ::.
// The last byte is kept: 127.0.0.53 and 127.0.0.54 stay two addresses.
static __always_inline struct ip own_loopback(const struct settings *s, const struct ip *a)
{
	__be32 last = a->w[3] & bpf_htonl(0xff);

	if (is_v4(a))
		return v4(s->loop4.w[3] | (last ?: bpf_htonl(1)));
	return s->loop6;
}

// The primary address of a family; false: the guest has none.
static __always_inline bool primary(const struct settings *s, bool four, struct ip *a)
{
	*a = four ? s->first4 : s->first6;
	return !is_any(a);
}

// The functions with loops are global: the verifier looks at each of these once
// a program, not at every call and in every state (2 s a boot, else).

// Is it one of the guest's addresses?
__noinline int vs_is_own(const struct ip *a)
{
	const struct settings *s = settings();

	if (!a)
		return 0;
	if (is_own_loopback(s, a))
		return 1;
	for (int i = 0; i < MAX_ADDRESSES && i < s->addresses_n; i++)
		if (same(a, &s->addresses[i].addr))
			return 1;
	return 0;
}

// May the guest take this port of its addresses? Port 0 lets the kernel choose
// an ephemeral one, which nobody owns.
__noinline int vs_owns_port(__u32 proto, __u32 port)
{
	const struct settings *s = settings();

	if (port == 0 || s->all_ports)
		return 1;
	port |= proto << 16;
	for (int i = 0; i < MAX_PORTS && i < s->ports_n; i++)
		if (s->ports[i].first <= port && port <= s->ports[i].last)
			return 1;
	return 0;
}

// The address whose subnet a destination is in.
__noinline int vs_subnet(const struct ip *to, struct ip *from)
{
	const struct settings *s = settings();

	if (!to || !from)
		return 0;
	for (int i = 0; i < MAX_ADDRESSES && i < s->addresses_n; i++) {
		const struct own_address *o = &s->addresses[i];

		if (((o->addr.w[0] ^ to->w[0]) & o->mask.w[0]) | ((o->addr.w[1] ^ to->w[1]) & o->mask.w[1]) |
		    ((o->addr.w[2] ^ to->w[2]) & o->mask.w[2]) | ((o->addr.w[3] ^ to->w[3]) & o->mask.w[3]))
			continue;
		*from = o->addr;
		return 1;
	}
	return 0;
}
