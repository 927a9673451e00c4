package netctx

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/port"
)

// shown returns the settings that the programs of a running guest use.
func shown(cgroup *os.File) (Spec, error) {
	var s Spec
	err := withMap(cgroup, settingsMap, unsafe.Sizeof(netctxSettings{}), func(m *ebpf.Map, id uint64) error {
		var set netctxSettings
		if err := m.Lookup(id, &set); err != nil {
			return err
		}
		s = set.spec()
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("read network context of %s: %w", cgroup.Name(), err)
	}
	return s, nil
}

// spec returns the Spec from which settings were made.
func (set *netctxSettings) spec() Spec {
	s := Spec{XID: int(set.Context), AllPorts: set.AllPorts != 0}
	for _, a := range set.Addresses[:min(set.AddressesN, uint32(maxAddresses))] {
		addr, bits := address(a.Addr.W), 0
		for _, w := range a.Mask.W {
			for b := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, w)); b != 0; b <<= 1 {
				bits++
			}
		}
		s.Addresses = append(s.Addresses, netip.PrefixFrom(addr, bits-128+addr.BitLen()))
	}
	for _, p := range set.Ports[:min(set.PortsN, uint32(maxPorts))] {
		r := port.Range{Proto: port.TCP, First: uint16(p.First), Last: uint16(p.Last)}
		if p.First>>16 == unix.IPPROTO_UDP {
			r.Proto = port.UDP
		}
		s.Ports = append(s.Ports, r)
	}
	return s
}

func address(w [4]uint32) netip.Addr {
	var b [16]byte
	for i := range w {
		binary.NativeEndian.PutUint32(b[4*i:], w[i])
	}
	return netip.AddrFrom16(b).Unmap()
}
