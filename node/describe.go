package node

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// describe returns the facts about this machine.
func describe(version string) (api.Host, error) {
	h := api.Host{Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Version: version}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return h, fmt.Errorf("uname: %w", err)
	}
	h.Hostname = unix.ByteSliceToString(uts.Nodename[:])
	h.Kernel = unix.ByteSliceToString(uts.Release[:])
	h.OS = field("/etc/os-release", "PRETTY_NAME=")
	h.BootID = bootID()
	if kib, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal:"), " kB"), 10, 64); err == nil {
		h.MemoryBytes = kib << 10
	}
	mount, err := cgroup.Mount()
	if err == nil {
		if h.Controllers, err = cgroup.Controllers(mount); err != nil {
			return h, err
		}
	} else if !errors.Is(err, cgroup.ErrNotMounted) {
		return h, err
	}
	h.Methods = builder.Methods()
	h.DefaultAddress, h.DefaultDev, err = defaultAddress()
	return h, err
}

// bootID identifies the time since the last boot; "" if the kernel does not say it.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// field returns the value of the first line that begins with key, "" if there is
// none.
func field(path, key string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(b) {
		if v, ok := strings.CutPrefix(string(line), key); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}

// defaultAddress returns the host's first global IPv4 address on the device of its
// default route; without a default route, the first global address of any device.
func defaultAddress() (netip.Prefix, string, error) {
	index := 0
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, "", fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			index = r.LinkIndex
			break
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		addrs, err := netlink.AddrList(nil, family)
		if err != nil {
			return netip.Prefix{}, "", fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range addrs {
			if a.Scope != int(netlink.SCOPE_UNIVERSE) || index != 0 && a.LinkIndex != index {
				continue
			}
			ip, ok := netip.AddrFromSlice(a.IP)
			if !ok {
				continue
			}
			link, err := netlink.LinkByIndex(a.LinkIndex)
			if err != nil {
				return netip.Prefix{}, "", fmt.Errorf("device of %s: %w", ip, err)
			}
			ones, _ := a.Mask.Size()
			return netip.PrefixFrom(ip.Unmap(), ones), link.Attrs().Name, nil
		}
	}
	return netip.Prefix{}, "", nil
}
