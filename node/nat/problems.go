package nat

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/probe"
)

// Problems returns what keeps private networks from working on this host and must
// be changed by its administrator: one line per problem, with the cure.
func Problems(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	defer conn.CloseLasting()
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer host.Close()

	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	problems, err := droppingChains(conn, chains)
	if err != nil {
		return nil, err
	}
	for _, family := range []string{"ip", "ip6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + family + "_tables_names")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for legacy iptables: %w", err)
		}
		if strings.Contains("\n"+string(b), "\nfilter\n") {
			problems = append(problems, fmt.Sprintf("rules of %[1]stables-legacy are loaded, whose policy cannot be told from here: if `%[1]stables-legacy -S FORWARD` says DROP, accept vs+ there, in (-i) and out (-o)", family))
		}
	}
	mine, err := ourDevices()
	if err != nil {
		return nil, err
	}
	more, err := foreignRoutes(host, mine)
	if err != nil {
		return nil, err
	}
	problems = append(problems, more...)
	lost, err := tableIsGone(chains)
	if err != nil {
		return nil, err
	}
	if lost {
		problems = append(problems, "table inet "+tableName+" is gone while guests run (`nft flush ruleset`?): the next start or stop of a guest brings it back")
	}
	return problems, nil
}

// droppingChains describes the base chains that drop forwarded packets. It skips
// tables with a rule about our devices: there somebody has taken care of it.
func droppingChains(conn *nftables.Conn, chains []*nftables.Chain) ([]string, error) {
	var problems []string
	for _, c := range chains {
		family, layer3 := map[nftables.TableFamily]string{
			nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
		}[c.Table.Family]
		if !layer3 || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Table.Name == tableName && family == "inet" {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, fmt.Errorf("read rules of table %s %s: %w", family, c.Table.Name, err)
		}
		if !probe.DropsByDefault(c, rules) {
			continue
		}
		in, out, err := acceptsGuests(conn, chains, c.Table)
		if err != nil {
			return nil, fmt.Errorf("read rules of table %s %s: %w", family, c.Table.Name, err)
		}
		if in && out {
			continue
		}
		problems = append(problems, fmt.Sprintf(
			"chain %[3]s of table %[1]s %[2]s drops what is forwarded, guests' packets too: accept them there, e.g. `nft insert rule %[1]s %[2]s %[3]s iifname \"vs*\" accept` and `… oifname \"vs*\" accept` (docker: both in DOCKER-USER; ufw: `ufw route allow in on vs+` and `… out on vs+`; firewalld: vs+ into zone trusted)",
			family, c.Table.Name, c.Name))
	}
	return problems, nil
}

// acceptsGuests reports whether a table has rules, other than drops, about packets
// from our devices and about packets to them.
func acceptsGuests(conn *nftables.Conn, chains []*nftables.Chain, t *nftables.Table) (in, out bool, err error) {
	for _, c := range chains {
		if c.Table.Name != t.Name || c.Table.Family != t.Family {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return false, false, err
		}
		for _, r := range rules {
			i, o := matchesGuests(r)
			in, out = in || i, out || o
		}
	}
	return in, out, nil
}

func matchesGuests(r *nftables.Rule) (in, out bool) {
	var key expr.MetaKey
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			key = e.Key
		case *expr.Cmp:
			named := e.Op == expr.CmpOpEq && (bytes.HasPrefix(e.Data, []byte("vs")) || bytes.Equal(e.Data, ourGroup()))
			in = in || named && (key == expr.MetaKeyIIFNAME || key == expr.MetaKeyIIFGROUP)
			out = out || named && (key == expr.MetaKeyOIFNAME || key == expr.MetaKeyOIFGROUP)
		case *expr.Verdict:
			if e.Kind == expr.VerdictDrop {
				return false, false
			}
		}
	}
	return in, out
}

// foreignRoutes describes routes of others into our pools, in any routing table:
// Tailscale and providers' networks use 100.64.0.0/10, too. Devices of guests that
// were started after mine was read are recognized as ours as well.
func foreignRoutes(host *netlink.Handle, mine map[int]bool) ([]string, error) {
	var problems []string
	err := dump(unix.RTM_GETROUTE, nl.NewIfAddrmsg(unix.AF_UNSPEC), func(m []byte) {
		if len(m) < unix.SizeofRtMsg {
			return
		}
		head := nl.DeserializeRtMsg(m)
		var addr netip.Addr
		var dev int
		for kind, value := range attributes(m[unix.SizeofRtMsg:]) {
			switch kind {
			case unix.RTA_DST:
				addr, _ = netip.AddrFromSlice(value)
			case unix.RTA_OIF:
				dev = int(binary.NativeEndian.Uint32(value))
			}
		}
		if mine[dev] || dev == 0 || !addr.IsValid() || head.Dst_len == 0 || head.Type == unix.RTN_BROADCAST {
			return
		}
		p, f := netip.PrefixFrom(addr, int(head.Dst_len)), familyOf(addr)
		if !p.Overlaps(f.pool) {
			return
		}
		name := fmt.Sprint("number ", dev)
		l, err := host.LinkByIndex(dev)
		switch {
		case errors.As(err, &netlink.LinkNotFoundError{}):
			return // the device is gone, and the route with it
		case err == nil && isOurs(l):
			return
		case err == nil:
			name = l.Attrs().Name
		}
		problems = append(problems, fmt.Sprintf("route %s on device %s meets the guests' private addresses %s: guests and whoever is there cannot reach each other; use another range there, or no guests in nat mode on this host", p, name, f.pool))
	})
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	return problems, nil
}

// ourDevices returns the indexes of all our veths.
func ourDevices() (map[int]bool, error) {
	l, err := readDevices()
	if err != nil {
		return nil, err
	}
	mine := map[int]bool{}
	for _, index := range l.index {
		mine[index] = true
	}
	return mine, nil
}

func tableIsGone(chains []*nftables.Chain) (bool, error) {
	for _, c := range chains {
		if c.Table.Name == tableName && c.Table.Family == nftables.TableFamilyINet {
			return false, nil
		}
	}
	mine, err := ourDevices()
	return len(mine) > 0, err
}
