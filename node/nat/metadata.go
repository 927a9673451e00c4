package nat

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Metadata lists the addresses at which clouds serve data about a machine, including
// its credentials. They identify the machine by its address, and a guest's requests
// come from the host's. node/netctx/bpf/settings.h has the same list.
func Metadata() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("169.254.0.0/16"),      // AWS, Google, Azure, OpenStack, Tencent, Oracle and most others
		netip.MustParsePrefix("100.100.100.200/32"),  // Alibaba
		netip.MustParsePrefix("168.63.129.16/32"),    // Azure's wire server
		netip.MustParsePrefix("192.0.0.192/32"),      // Oracle's older cloud
		netip.MustParsePrefix("fd00:ec2::/32"),       // AWS
		netip.MustParsePrefix("fd20:ce::254/128"),    // Google
		netip.MustParsePrefix("fd00:42::42/128"),     // Scaleway
		netip.MustParsePrefix("fe80::a9fe:a9fe/128"), // OpenStack
	}
}

// withholdMetadata adds the chain that a guest's honest packets pass through. Packets
// are rejected rather than dropped, as cloud-init would otherwise wait for minutes.
// Answers of a guest's service pass, because Azure's load balancer sends its health
// probes from the address of the wire server.
func (l *layout) withholdMetadata(fs []familySets, allowed *nftables.Set) {
	metadata := l.chain("metadata")
	l.add(metadata, exprs{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)}}, in(allowed), verdict(expr.VerdictAccept))
	// Services at these addresses that reveal nothing about the host: the resolvers
	// of Azure, Google and AWS, and AWS's time service.
	for _, s := range []struct {
		proto byte
		port  uint16
	}{{unix.IPPROTO_UDP, 53}, {unix.IPPROTO_TCP, 53}, {unix.IPPROTO_UDP, 123}} {
		l.add(metadata, service(s.proto, s.port), verdict(expr.VerdictAccept))
	}
	l.add(metadata, opensNoTCP(), verdict(expr.VerdictAccept))
	l.add(metadata, reject())

	honest := l.chain("honest")
	for _, f := range fs {
		for _, p := range Metadata() {
			if f.has(p.Addr()) {
				l.add(honest, f.matches(), f.addrIn(f.dst, p), jump(metadata))
			}
		}
	}
	l.add(honest, verdict(expr.VerdictAccept))
}
