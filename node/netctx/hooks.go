package netctx

import "github.com/cilium/ebpf"

// hook is a program of the object and where it is attached.
type hook struct {
	name string // in C, and name of its pin
	at   ebpf.AttachType
}

// hooks lists the programs of every guest's cgroup. They refuse everything until the
// settings are written, so their order does not matter.
var hooks = [...]hook{
	{"vs_create", ebpf.AttachCGroupInetSockCreate},
	{"vs_release", ebpf.AttachCgroupInetSockRelease},
	{"vs_bind4", ebpf.AttachCGroupInet4Bind},
	{"vs_bind6", ebpf.AttachCGroupInet6Bind},
	{"vs_post_bind4", ebpf.AttachCGroupInet4PostBind},
	{"vs_post_bind6", ebpf.AttachCGroupInet6PostBind},
	{"vs_connect4", ebpf.AttachCGroupInet4Connect},
	{"vs_connect6", ebpf.AttachCGroupInet6Connect},
	{"vs_sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
	{"vs_sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
	{"vs_recvmsg4", ebpf.AttachCGroupUDP4Recvmsg},
	{"vs_recvmsg6", ebpf.AttachCGroupUDP6Recvmsg},
	{"vs_getsockname4", ebpf.AttachCgroupInet4GetSockname},
	{"vs_getsockname6", ebpf.AttachCgroupInet6GetSockname},
	{"vs_getpeername4", ebpf.AttachCgroupInet4GetPeername},
	{"vs_getpeername6", ebpf.AttachCgroupInet6GetPeername},
	{"vs_setsockopt", ebpf.AttachCGroupSetsockopt},
	{"vs_sockops", ebpf.AttachCGroupSockOps},
	{"vs_egress", ebpf.AttachCGroupInetEgress},
	{"vs_ingress", ebpf.AttachCGroupInetIngress},
}

// steer is the program of the network namespace. It finds a listener by any address
// of its guest.
var steer = hook{"vs_steer", ebpf.AttachSkLookup}

// steering is the pin of the link that attaches it.
const steering = "vs_steering"

// unixHooks lists the programs for guests that Landlock cannot keep from the host's
// abstract Unix sockets.
var unixHooks = [...]hook{
	{"vs_connect_unix", ebpf.AttachCgroupUnixConnect},
	{"vs_sendmsg_unix", ebpf.AttachCgroupUnixSendmsg},
}

// Names of maps in C. The kernel keeps 15 characters of a name.
const (
	settingsMap = "vs_settings"
	trafficMap  = "vs_traffic"
	guestsMap   = "vs_guests"
)
