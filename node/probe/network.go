package probe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
)

// natModules have what the packet filter of nat guests consists of.
var natModules = []string{"nf_tables", "nft_chain_nat", "nft_connlimit", "nft_ct", "nft_fib_inet", "nft_masq", "nft_nat", "nft_reject_inet", "nf_conntrack_netlink"}

// nfTables asks what is there. Rules load the modules that they need, if the kernel
// still does.
func nfTables(s *System) Answer {
	c, err := nftables.New()
	if err != nil {
		return Tried(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return Tried(fmt.Errorf("list tables: %w", err))
	}
	if lost := s.lostModules(natModules); lost != nil {
		return No("not loaded: %s", strings.Join(lost, ", "))
	}
	return Yes("%d tables", len(tables))
}

// socketDiag asks for the sockets of no state.
func socketDiag(*System) Answer {
	for _, proto := range []port.Proto{port.TCP, port.UDP} {
		ask := make([]byte, 56) // struct inet_diag_req_v2
		ask[0], ask[1] = unix.AF_INET, unix.IPPROTO_TCP
		if proto == port.UDP {
			ask[1] = unix.IPPROTO_UDP
		}
		_, err := linux.Netlink(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, ask)
		switch {
		case errors.Is(err, unix.ENOENT):
			return No("the kernel does not list %s sockets", proto)
		case err != nil:
			return Tried(err)
		}
	}
	return Yes("")
}

const probeLink = "vsncheck"

// vethPair makes one in a network namespace of its own.
func vethPair(*System) Answer {
	_, err := linux.OnOwnThread(func() (none struct{}, _ error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return none, fmt.Errorf("unshare: %w", err)
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE) // others would need modules of their own
		if err != nil {
			return none, err
		}
		defer h.Close()
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: probeLink + "0"}, PeerName: probeLink + "1"}); err != nil {
			return none, fmt.Errorf("veth: %w", err)
		}
		return none, nil
	})
	return Tried(err)
}

// pingRange: a ping socket is allowed to groups of this range. The kernel's
// bound for its end is 2^31-1, the last id of context 32767.
func pingRange(s *System) Answer {
	const last, idsPerGuest = 1<<31 - 1, 1 << 16
	from, to, err := s.pingGroups()
	if err != nil {
		return Unknown("%v", err)
	}
	if from > api.MinContext*idsPerGuest || to < last {
		return No("net.ipv4.ping_group_range is %d %d", from, to)
	}
	return Yes("contexts up to %d; the kernel has no word for higher ones", last/idsPerGuest)
}

// EphemeralPorts returns the ports that the kernel gives to sockets which ask for
// none, in the network namespace of the thread. They have no protocol.
func EphemeralPorts() (r port.Range, err error) {
	const setting = "net.ipv4.ip_local_port_range"
	text, err := Here().Read("proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return r, fmt.Errorf("read %s: %w", setting, err)
	}
	if _, err := fmt.Sscan(text, &r.First, &r.Last); err != nil || len(strings.Fields(text)) != 2 {
		return r, fmt.Errorf("%s is %q, want two ports", setting, text)
	}
	return r, nil
}

// PingGroups returns the first and the last of the groups on the host we run on
// that may open ping sockets.
func PingGroups() (first, last int64, err error) { return Here().pingGroups() }

func (s *System) pingGroups() (first, last int64, err error) {
	text, err := s.Read("proc/sys/net/ipv4/ping_group_range")
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(text, &first, &last); err != nil || len(strings.Fields(text)) != 2 {
		return 0, 0, fmt.Errorf("net.ipv4.ping_group_range is %q", text)
	}
	return first, last, nil
}

// DropsByDefault reports whether a base chain drops or rejects what none of its rules
// accepts: by its policy, or by its last rule, as firewalld's.
func DropsByDefault(c *nftables.Chain, rules []*nftables.Rule) bool {
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return true
	}
	if len(rules) == 0 {
		return false
	}
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log, *expr.Limit:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop
		default:
			return false
		}
	}
	return false
}
