package netctx

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/probe"
)

// EphemeralPorts returns the ports of a guest that a connection of the host or of
// another guest may use for a while, so that the guest cannot bind them: those in
// net.ipv4.ip_local_port_range and not in net.ipv4.ip_local_reserved_ports. Both are
// settings of the current network namespace. The result is sorted, and nil if there
// are none.
func EphemeralPorts(ports []port.Range) ([]port.Range, error) {
	chosen, err := probe.EphemeralPorts()
	if err != nil {
		return nil, err
	}
	reserved, err := reservedPorts()
	if err != nil {
		return nil, err
	}
	merged, err := merge(ports)
	if err != nil {
		return nil, err
	}
	var out []port.Range
	for _, r := range merged {
		// As int, because first may pass the last possible port.
		first, last := max(int(r.First), int(chosen.First)), min(int(r.Last), int(chosen.Last))
		for _, k := range reserved { // sorted
			if int(k.First) > last {
				break
			}
			if int(k.Last) < first {
				continue
			}
			if first < int(k.First) {
				out = append(out, port.Range{Proto: r.Proto, First: uint16(first), Last: k.First - 1})
			}
			first = int(k.Last) + 1
		}
		if first <= last {
			out = append(out, port.Range{Proto: r.Proto, First: uint16(first), Last: uint16(last)})
		}
	}
	return out, nil
}

// socketsPerGuest returns the number of sockets of each protocol that a guest in
// the host's network may have: a quarter of the ports that the kernel hands out.
func socketsPerGuest() (uint32, error) {
	const share, least = 4, 256
	r, err := probe.EphemeralPorts()
	if err != nil {
		return 0, err
	}
	return max((uint32(r.Last)-uint32(r.First)+1)/share, least), nil
}

// reservedPorts returns the ports that the kernel does not hand out.
func reservedPorts() ([]port.Range, error) {
	const path = "/proc/sys/net/ipv4/ip_local_reserved_ports"
	b, err := linux.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := parseReserved(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return list, nil
}

// parseReserved reads "8080,9148-9150" (proc_do_large_bitmap), sorted by the
// kernel. The ports have no protocol; they are returned as those of TCP.
func parseReserved(text string) (list []port.Range, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, err
		}
		b, err := strconv.ParseUint(last, 10, 16)
		if err != nil {
			return nil, err
		}
		// Port 0 can be reserved, too, which means nothing.
		if r := (port.Range{Proto: port.TCP, First: uint16(max(a, 1)), Last: uint16(b)}); r.Last >= r.First {
			list = append(list, r)
		}
	}
	return merge(list)
}
