// Package port holds what the inventory and the node both say of ports: which
// one of which protocol, and which port of the host leads to which of a guest.
// Values only: it opens nothing.
package port

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Proto is a transport protocol that has ports: "tcp" or "udp".
type Proto string

// Protocols that have ports.
const (
	TCP Proto = "tcp"
	UDP Proto = "udp"
)

// Range is one or several neighbouring ports of one protocol, written as
// "80/tcp", "53/udp" or "8000-8010/tcp". Without a protocol tcp is meant.
type Range struct {
	Proto Proto
	First uint16 // 1 to 65535
	Last  uint16 // not below First
}

// Parse reads "80", "80/tcp" or "8000-8010/udp".
func Parse(s string) (Range, error) {
	num, proto, found := strings.Cut(s, "/")
	if !found {
		proto = string(TCP)
	}
	r := Range{Proto: Proto(strings.ToLower(proto))}
	if r.Proto != TCP && r.Proto != UDP {
		return Range{}, fmt.Errorf("port %q: protocol is %q, want tcp or udp", s, proto)
	}
	first, last, isRange := strings.Cut(num, "-")
	var err error
	if r.First, err = number(first); err != nil {
		return Range{}, fmt.Errorf("port %q: %w", s, err)
	}
	r.Last = r.First
	if isRange {
		if r.Last, err = number(last); err != nil {
			return Range{}, fmt.Errorf("port %q: %w", s, err)
		}
	}
	if r.Last < r.First {
		return Range{}, fmt.Errorf("port %q: the range ends before it begins", s)
	}
	return r, nil
}

func number(s string) (uint16, error) {
	// In base 10 ParseUint takes digits only: no sign, no 0x, no underscore. A
	// leading zero is refused, as some read an octal number there.
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || s[0] == '0' {
		return 0, fmt.Errorf("%q is not a port number from 1 to 65535", s)
	}
	return uint16(n), nil
}

func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprintf("%d/%s", r.First, r.Proto)
	}
	return fmt.Sprintf("%d-%d/%s", r.First, r.Last, r.Proto)
}

// Contains reports whether a port is in the range, whatever its protocol.
func (r Range) Contains(p uint16) bool { return r.First <= p && p <= r.Last }

// Overlaps reports whether the two ranges have a port of one protocol in common.
func (r Range) Overlaps(o Range) bool {
	return r.Proto == o.Proto && r.First <= o.Last && o.First <= r.Last
}

// MarshalText and UnmarshalText give the written form to JSON and YAML.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what Parse reads.
func (r *Range) UnmarshalText(b []byte) (err error) {
	*r, err = Parse(string(b))
	return err
}

// Forward leads a port of the host to a port of a guest behind it, written as
// "2222:22/tcp", "192.0.2.1:2222:22/tcp" or "[2001:db8::1]:2222:22/udp".
// An invalid Addr means every address of the host.
type Forward struct {
	Addr  netip.Addr
	Host  uint16
	Guest uint16
	Proto Proto
}

// ParseForward reads the written form of a forward.
func ParseForward(s string) (Forward, error) {
	body, proto, found := strings.Cut(s, "/")
	if !found {
		proto = string(TCP)
	}
	f := Forward{Proto: Proto(strings.ToLower(proto))}
	if f.Proto != TCP && f.Proto != UDP {
		return Forward{}, fmt.Errorf("forward %q: protocol is %q, want tcp or udp", s, proto)
	}
	cut := strings.LastIndexByte(body, ':')
	if cut < 0 {
		return Forward{}, fmt.Errorf("forward %q: want HOSTPORT:GUESTPORT/PROTO", s)
	}
	host, guest := body[:cut], body[cut+1:]
	var err error
	if f.Guest, err = number(guest); err != nil {
		return Forward{}, fmt.Errorf("forward %q: guest's port: %w", s, err)
	}
	if cut := strings.LastIndexByte(host, ':'); cut >= 0 {
		if f.Addr, err = address(host[:cut]); err != nil {
			return Forward{}, fmt.Errorf("forward %q: %w", s, err)
		}
		host = host[cut+1:]
	}
	if f.Host, err = number(host); err != nil {
		return Forward{}, fmt.Errorf("forward %q: host's port: %w", s, err)
	}
	return f, nil
}

// address reads an IPv4 address or, in brackets, an IPv6 one. Without them
// "2001:db8::1:2222:22" would be another address with another port to anybody
// who forgets one of the two.
func address(s string) (netip.Addr, error) {
	inner, bracket := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil || bracket != closed:
		return netip.Addr{}, fmt.Errorf("%q is not an address", s)
	case addr.Is4() == bracket:
		return netip.Addr{}, fmt.Errorf("%q: brackets belong around an IPv6 address, and only there", s)
	case addr.IsUnspecified():
		// As an address to compare with, it would match no packet.
		return netip.Addr{}, fmt.Errorf("%q is no address of a host; leave it out to mean every address", s)
	case addr.Is4In6() || addr.Zone() != "":
		// Two ways to write one address would not be seen to collide.
		return netip.Addr{}, fmt.Errorf("%q: write the address plainly, as %s", s, addr.Unmap().WithZone(""))
	}
	return addr, nil
}

func (f Forward) String() string {
	switch {
	case !f.Addr.IsValid():
		return fmt.Sprintf("%d:%d/%s", f.Host, f.Guest, f.Proto)
	case f.Addr.Is4():
		return fmt.Sprintf("%s:%d:%d/%s", f.Addr, f.Host, f.Guest, f.Proto)
	default:
		return fmt.Sprintf("[%s]:%d:%d/%s", f.Addr, f.Host, f.Guest, f.Proto)
	}
}

// Range is the host's side of the forward: the port that it takes there.
func (f Forward) Range() Range { return Range{Proto: f.Proto, First: f.Host, Last: f.Host} }

// MarshalText and UnmarshalText give the written form to JSON and YAML.
func (f Forward) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what ParseForward reads.
func (f *Forward) UnmarshalText(b []byte) (err error) {
	*f, err = ParseForward(string(b))
	return err
}
