package nat

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Metadata is where clouds serve what a machine may know of itself, its
// credentials included. They go by the address that asks, and a guest asks from
// the host's. node/netctx/bpf/settings.h has the same list.
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

// withholdMetadata adds the chain that a guest's honest packets go through. A
// program that is refused learns it at once: cloud-init would wait for minutes.
// Answers of a service pass, as Azure probes the health of what it balances from
// the address of its wire server.
func (l *layout) withholdMetadata(fs []familySets, allowed *nftables.Set) {
	metadata := l.chain("metadata")
	l.add(metadata, exprs{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)}}, in(allowed), verdict(expr.VerdictAccept))
	// What is served there and tells nothing of the host: resolvers of Azure,
	// Google and AWS, and AWS's time.
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
