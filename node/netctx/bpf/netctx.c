// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// The programs of a network context: one object, one file a family.
//
// Every hook is attached to a guest's cgroup and finds that guest's settings
// in cgroup storage. A cgroup whose settings were not written yet has none of
// them, and is refused everything.
#include "settings.h"

#include "sock.c"
#include "bind.c"
#include "local.c"
#include "connect.c"
#include "sendmsg.c"
#include "names.c"
#include "packet.c"
#include "sockopt.c"
#include "steer.c"

// bpf_set_retval and the socket lookups are for GPL-compatible programs only.
char __license[] SEC("license") = "GPL";
