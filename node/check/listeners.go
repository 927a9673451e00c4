package check

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/printable"
)

// listener is a TCP socket that listens on all addresses.
type listener struct {
	address string // "0.0.0.0:22", "[::]:22"
	inode   string
}

// parseListeners reads /proc/net/tcp and tcp6 (proc(5)) for listeners on all
// addresses; lines that are none are left out.
func parseListeners(text string) []listener {
	var found []listener
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "0A" { // TCP_LISTEN
			continue
		}
		addr, hexPort, ok := strings.Cut(f[1], ":")
		port, err := strconv.ParseUint(hexPort, 16, 16)
		// ::ffff:0.0.0.0, in words of the machine's order, is all addresses, too.
		if !ok || err != nil || strings.Trim(addr, "0") != "" && addr != "0000000000000000FFFF000000000000" && addr != "00000000000000000000FFFF00000000" {
			continue
		}
		any := "0.0.0.0"
		if len(addr) > 8 {
			any = "[::]"
		}
		found = append(found, listener{fmt.Sprintf("%s:%d", any, port), f[9]})
	}
	return found
}

// wildcardListeners finds the oldest pitfall of all: the host's sshd listens on
// every address, so that who logs in to a guest lands on the host.
func wildcardListeners(s *System) finding {
	var found []listener
	for _, name := range []string{"proc/net/tcp", "proc/net/tcp6"} {
		b, err := fs.ReadFile(s.Files, name)
		if err != nil && name == "proc/net/tcp" { // a kernel may be without IPv6
			return unknown("%v", err)
		}
		found = append(found, parseListeners(string(b))...)
	}
	if found == nil {
		return yes("")
	}
	owners := s.socketOwners(found)
	var order []string // of owners, by first address
	ports := map[string][]string{}
	for _, l := range found {
		owner := owners[l.inode]
		if owner == "" {
			owner = nobody
		}
		if ports[owner] == nil {
			order = append(order, owner)
		}
		ports[owner] = append(ports[owner], l.address)
	}
	var parts, cures []string
	for _, owner := range order {
		parts = append(parts, owner+" listens on "+strings.Join(ports[owner], " "))
		cure := "give " + owner + " an address of the host to listen on"
		switch owner {
		case "sshd":
			cure = "write ListenAddress with the host's own address into /etc/ssh/sshd_config"
		case "systemd":
			cure = "write ListenStream= with the host's own address into the socket units (systemctl list-sockets)"
		}
		cures = append(cures, cure)
	}
	return no("%s", strings.Join(parts, "; ")).withCure("%s", strings.Join(cures, "; "))
}

// nobody in sight holds the socket: its process is in another pid namespace.
const nobody = "a process out of sight"

// socketOwners names the programs that hold the sockets; without their pids, so
// that many hosts say the same. It goes by age and ends when all are found, so
// mostly among the first daemons.
func (s *System) socketOwners(sockets []listener) map[string]string {
	wanted := map[string]bool{}
	for _, l := range sockets {
		wanted["socket:["+l.inode+"]"] = true
	}
	entries, err := fs.ReadDir(s.Files, "proc")
	if err != nil {
		return nil // the owners' names are an extra
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	owners := map[string]string{}
	for _, pid := range pids {
		dir := fmt.Sprintf("proc/%d", pid)
		fds, err := fs.ReadDir(s.Files, dir+"/fd")
		if err != nil {
			continue // it has ended
		}
		for _, fd := range fds {
			target, err := fs.ReadLink(s.Files, dir+"/fd/"+fd.Name())
			if err != nil || !wanted[target] {
				continue
			}
			delete(wanted, target)
			name, err := s.read(dir + "/comm")
			if err != nil {
				continue
			}
			inode := strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")
			owners[inode] = printable.Line(name) // which it chooses itself
		}
		if len(wanted) == 0 {
			break
		}
	}
	return owners
}
