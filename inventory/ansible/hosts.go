package ansible

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/nodeset"
)

// expandHosts returns the hosts that a pattern of an inventory names, with their
// port as the value of ansible_port: its Value is nil if none is given.
func expandHosts(pattern string) (names []string, port Var, err error) {
	name, number := cutPort(pattern)
	if number != "" {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return nil, port, fmt.Errorf("%q: want a port from 1 to 65535, have %q", pattern, number)
		}
		port = Var{Value: int64(n), Text: number}
	}
	if strings.HasSuffix(name, ":") {
		return nil, port, fmt.Errorf("%q: a : without a port", pattern)
	}
	open := strings.IndexByte(name, '[')
	if open < 0 || !strings.Contains(name[open:], ":") {
		return []string{name}, port, nil
	}
	// Ansible lets a range begin with nothing, for 0.
	names, err = nodeset.Expand(strings.ReplaceAll(name, "[:", "[0:"))
	return names, port, err
}

// cutPort cuts "web:2222" and "[2001:db8::1]:2222". An IPv6 address without
// brackets has no port.
func cutPort(s string) (name, port string) {
	if _, err := netip.ParseAddr(s); err == nil {
		return s, ""
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i < strings.LastIndexByte(s, ']') || i+1 == len(s) || strings.Trim(s[i+1:], "0123456789") != "" {
		return s, ""
	}
	name = s[:i]
	if inner, ok := strings.CutPrefix(name, "["); ok && strings.HasSuffix(inner, "]") {
		if ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err == nil {
			return ip.String(), s[i+1:]
		}
	}
	return name, s[i+1:]
}

// ReadHostList reads a list of hosts from the command line, "web1,web2:2222,".
func ReadHostList(list string) *Inventory {
	inv := newInventory()
	g := inv.group("ungrouped", Pos{1, 1})
	g.Declared = true
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, port := cutPort(item)
		h := inv.host(name, Pos{1, 1}, g)
		if n, err := strconv.ParseInt(port, 10, 64); err == nil {
			h.Vars["ansible_port"] = Var{n, port, Pos{1, 1}}
		}
	}
	return inv
}
