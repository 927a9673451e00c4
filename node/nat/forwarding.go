package nat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/vsfleet/vsfleet/internal/linux"
)

const (
	forward4 = "/proc/sys/net/ipv4/ip_forward"
	forward6 = "/proc/sys/net/ipv6/conf/all/forwarding"
)

func ipv6Conf(dev, key string) string {
	return filepath.Join("/proc/sys/net/ipv6/conf", dev, key)
}

// enableForwarding turns IP forwarding on.
func enableForwarding(host *netlink.Handle) error {
	if err := set(forward4, "1"); err != nil {
		return err
	}
	on, err := get(forward6)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	if err != nil || on == "1" {
		return err
	}
	// A host that forwards ignores router advertisements and drops the default
	// routes that it learned from them, unless accept_ra is 2: it would lose
	// its own IPv6.
	devs, err := defaultRoutes(host, netlink.FAMILY_V6)
	if err != nil {
		return err
	}
	for _, index := range devs {
		l, err := host.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("find device %d of the default route: %w", index, err)
		}
		key := ipv6Conf(l.Attrs().Name, "accept_ra")
		now, err := get(key)
		if err == nil && now == "1" {
			err = set(key, "2")
		}
		if err != nil {
			return err
		}
	}
	return set(forward6, "1")
}

// defaultRoutes returns the indexes of the devices of the default routes.
func defaultRoutes(host *netlink.Handle, family int) ([]int, error) {
	routes, err := linux.Dump(func() ([]netlink.Route, error) { return host.RouteList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	var devs []int
	for _, r := range routes {
		if r.Dst != nil {
			if bits, _ := r.Dst.Mask.Size(); bits != 0 {
				continue
			}
		}
		if r.LinkIndex != 0 {
			devs = append(devs, r.LinkIndex)
		}
		for _, hop := range r.MultiPath {
			devs = append(devs, hop.LinkIndex)
		}
	}
	return devs, nil
}

// familiesOf returns the address families that a device supports: none if the
// device is gone.
func familiesOf(dev string) ([]family, error) {
	all := families()
	off, err := get(ipv6Conf(dev, "disable_ipv6"))
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && off != "0":
		return all[:1], nil
	case err != nil:
		return nil, err
	}
	return all[:], nil
}

func get(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read a network setting: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// set writes a setting unless it already has that value.
func set(path, value string) error {
	if now, err := get(path); err != nil || now == value {
		return err
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w; if /proc/sys is read-only here, set it from outside", path, value, err)
	}
	return nil
}

func setIfThere(path, value string) error {
	if err := set(path, value); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
