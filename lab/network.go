package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// hostDevice is the name of a host's network device inside the host.
const hostDevice = "eth0"

func bridgeName(lab string) string      { return "vsf-" + lab }
func portName(lab string, n int) string { return fmt.Sprintf("vsf-%s-%d", lab, n) }

// hardwareAddr makes a device's address from its IP address, so that a host
// that is started again is not sought for seconds at the one it had before.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	ip := a.As4()
	return net.HardwareAddr{0x0a, 0xfd, ip[0], ip[1], ip[2], ip[3]} // 0x02 bit: locally administered
}

// route is an IPv4 route of this machine, other than the default one, which covers
// everything and claims nothing.
type route struct {
	to     netip.Prefix
	device int  // its index
	direct bool // without a gateway
}

func routes() ([]route, error) {
	all, err := linux.Dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE) // table 0: all of them
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var list []route
	for _, r := range all {
		if r.Dst == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		bits, _ := r.Dst.Mask.Size()
		if ok && bits > 0 {
			list = append(list, route{netip.PrefixFrom(addr, bits), r.LinkIndex, r.Gw == nil})
		}
	}
	return list, nil
}

// checkUnused refuses a subnet of which another device of this machine has a part, or
// which is part of a network that is connected directly. A wider one behind a gateway
// is no obstacle.
func (s *state) checkUnused(reg *registry) error {
	used, err := routes()
	if err != nil {
		return err
	}
	for _, r := range used {
		if !r.to.Overlaps(s.Subnet) || r.to.Bits() < s.Subnet.Bits() && !r.direct {
			continue
		}
		link, err := netlink.LinkByIndex(r.device)
		if err != nil || link.Attrs().Name == bridgeName(s.Name) {
			continue // it has just gone, or is our own
		}
		by := "the network device " + link.Attrs().Name
		labs, err := reg.labs()
		if err != nil {
			return err
		}
		for name, dir := range labs {
			if link.Attrs().Name == bridgeName(name) {
				by = fmt.Sprintf("the lab %q in %s", name, dir)
			}
		}
		return fmt.Errorf("%s is already used by %s: choose another network with --subnet", s.Subnet, by)
	}
	return nil
}

// freeSubnet returns the first of our subnets that no route of the machine uses.
func freeSubnet() (netip.Prefix, error) {
	used, err := routes()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, net := range [][2]byte{{10, 253}, {172, 29}} {
	next:
		for n := range 256 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{net[0], net[1], byte(n), 0}), 24)
			for _, u := range used {
				if p.Overlaps(u.to) {
					continue next
				}
			}
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("all of 10.253.0.0/16 and 172.29.0.0/16 is in use here: choose a network with --subnet")
}

// makeBridge makes the lab's bridge, or makes it right again.
func (s *state) makeBridge() (netlink.Link, error) {
	name := bridgeName(s.Name)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	// Without an address of its own a bridge takes over that of its ports and
	// changes it as they come and go.
	attrs.HardwareAddr = hardwareAddr(s.gateway())
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make bridge %s: %w", name, err)
	}
	bridge, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(s.gateway(), s.Subnet.Bits()))}
	if err := netlink.AddrReplace(bridge, addr); err != nil {
		return nil, fmt.Errorf("give %s to %s: %w", addr.IPNet, name, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return bridge, nil
}

// connect makes the pair of devices between the bridge and host n, whose
// first process is pid. The host's end is born in the host's namespace.
func (s *state) connect(bridge netlink.Link, n, pid int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = portName(s.Name, n)
	attrs.MasterIndex = bridge.Attrs().Index
	attrs.Flags = net.FlagUp
	veth := &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         hostDevice,
		PeerHardwareAddr: hardwareAddr(s.address(n)),
		PeerNamespace:    netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make link %s: %w", attrs.Name, err)
	}
	return nil
}

// reconnect reports whether host n is on the bridge. If only the bridge was made
// anew, it puts the host there first.
func (s *state) reconnect(bridge netlink.Link, n int) (bool, error) {
	link, err := netlink.LinkByName(portName(s.Name, n))
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		err = netlink.LinkSetMaster(link, bridge)
	}
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if errors.Is(err, unix.ENODEV) {
		return false, nil // it was just going, with a host that has died
	}
	return err == nil, err
}

// removeLink deletes a device of this machine, if it is there.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	// A veth also goes by itself, when the namespace of its other end does.
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// removeLinks deletes the lab's bridge and all ports of it.
func removeLinks(lab string) error {
	links, err := linux.Dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		number, isPort := strings.CutPrefix(name, bridgeName(lab)+"-")
		if name == bridgeName(lab) || isPort && strings.Trim(number, "0123456789") == "" {
			if err := removeLink(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func tableName(lab string) string { return "vsfleet-" + lab }

// filterPackets lets the lab's hosts reach what the machine reaches, under the
// machine's address. What stays inside the lab is not tracked: a load test there
// would fill the machine's table of connections, and with that drop everybody's.
//
//	table ip vsfleet-lab {
//		chain prerouting {
//			type filter hook prerouting priority raw;
//			ip saddr 10.253.0.0/24 ip daddr 10.253.0.0/24 notrack
//		}
//		chain output { … the same, of what the machine itself sends … }
//		chain postrouting {
//			type nat hook postrouting priority srcnat;
//			ip saddr 10.253.0.0/24 ip daddr != 10.253.0.0/24 masquerade
//		}
//	}
func (s *state) filterPackets() error {
	nft, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Name: tableName(s.Name), Family: nftables.TableFamilyIPv4}
	nft.AddTable(table) // so that there is one to delete
	nft.DelTable(table)
	nft.AddTable(table)
	chain := nft.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	const source, destination = 12, 16 // in the IPv4 header
	subnet := s.Subnet.Masked().Addr().As4()
	mask := net.CIDRMask(s.Subnet.Bits(), 32)
	inSubnet := func(field uint32, op expr.CmpOp) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: field, Len: 4},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: binaryutil.NativeEndian.PutUint32(0)},
			&expr.Cmp{Register: 1, Op: op, Data: subnet[:]},
		}
	}
	for _, hook := range []struct {
		name string
		at   *nftables.ChainHook
	}{{"prerouting", nftables.ChainHookPrerouting}, {"output", nftables.ChainHookOutput}} {
		raw := nft.AddChain(&nftables.Chain{
			Name: hook.name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook.at, Priority: nftables.ChainPriorityRaw,
		})
		inside := append(inSubnet(source, expr.CmpOpEq), inSubnet(destination, expr.CmpOpEq)...)
		nft.AddRule(&nftables.Rule{Table: table, Chain: raw, Exprs: append(inside, &expr.Notrack{})})
	}
	rule := append(inSubnet(source, expr.CmpOpEq), inSubnet(destination, expr.CmpOpNeq)...)
	nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(rule, &expr.Masq{})})
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", table.Name, err)
	}
	return nil
}

func removeTable(lab string) error {
	nft, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Name: tableName(lab), Family: nftables.TableFamilyIPv4}
	nft.AddTable(table)
	nft.DelTable(table)
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", table.Name, err)
	}
	return nil
}

// forgetConnections removes what the machine's table of connections has of the
// lab's hosts, which would else stay for up to five days.
func forgetConnections(subnet netip.Prefix) error {
	filter := &netlink.ConntrackFilter{}
	if err := filter.AddIPNet(netlink.ConntrackOrigSrcIP, ipNet(subnet.Masked())); err != nil {
		return err
	}
	for {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filter)
		switch {
		case errors.Is(err, netlink.ErrDumpInterrupted), errors.Is(err, unix.ENOENT): // the table changed on the way
		case err != nil:
			return fmt.Errorf("forget connections of %s: %w", subnet, err)
		default:
			return nil
		}
	}
}

// configureNetwork runs inside a host, before its sshd.
func configureNetwork(address netip.Prefix, gateway netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	eth0, err := netlink.LinkByName(hostDevice)
	if err != nil {
		return fmt.Errorf("%s: %w", hostDevice, err)
	}
	if err := netlink.AddrReplace(eth0, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
		return fmt.Errorf("give %s to %s: %w", address, hostDevice, err)
	}
	if err := netlink.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("set %s up: %w", hostDevice, err)
	}
	route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice()}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("default route by %s: %w", gateway, err)
	}
	// A new network namespace takes over what the machine has set, forwarding
	// among it, which the lab itself turned on; a host just installed has it
	// off and, with systemd, lets everybody ping.
	for _, s := range []struct{ path, value string }{
		{forwardSysctl, "0"},
		{"/proc/sys/net/ipv4/ping_group_range", "0 2147483647"},
	} {
		if err := os.WriteFile(s.path, []byte(s.value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
