package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Files of a lab's directory, its state aside.
const (
	hostsDir       = "hosts"
	inventoryFile  = "fleet.yml"
	knownHostsFile = "known_hosts"
	identityFile   = "id_ed25519"
)

// labFiles are the names that are the lab's to remove.
func labFiles() []string {
	names := []string{hostsDir}
	for _, f := range []string{inventoryFile, knownHostsFile, identityFile, identityFile + ".pub"} {
		names = append(names, f, f+newSuffix)
	}
	return names
}

// writeFiles writes what others need in order to use the lab.
func (l *Lab) writeFiles() error {
	var known strings.Builder
	for _, h := range l.Hosts {
		public, err := os.ReadFile(hostKeyPath(filepath.Join(l.Dir, hostsDir, h.Name)) + ".pub")
		if err != nil {
			return err
		}
		fmt.Fprintf(&known, "%s,%s %s", h.Name, h.Address, public)
	}
	if err := writeFile(l.KnownHosts, []byte(known.String()), 0o600); err != nil {
		return err
	}
	var inv strings.Builder
	fmt.Fprintf(&inv, `# Written by each "vsfleet lab up": keep guests of your own in a second file.
ssh:
  config: none
  user: root
  identity: %q
  known_hosts: %q
hosts:
`, l.Identity, l.KnownHosts)
	for _, h := range l.Hosts {
		fmt.Fprintf(&inv, "  %s: {address: %s, netdev: %s}\n", h.Name, h.Address, hostDevice)
	}
	return writeFile(l.Inventory, []byte(inv.String()), 0o600)
}

// Usage returns a short text on how to use the lab.
func (l *Lab) Usage() string {
	var b strings.Builder
	first := l.Hosts[0]
	fmt.Fprintf(&b, "Inventory: %s\n\n", l.Inventory)
	fmt.Fprintf(&b, "  vsfleet -i %s ping\n", l.Inventory)
	fmt.Fprintf(&b, "  ssh -i %s -o UserKnownHostsFile=%s root@%s\n", l.Identity, l.KnownHosts, first.Address)
	down := "vsfleet lab down"
	if l.Dir != DefaultDir {
		down += " --dir " + l.Dir
	}
	fmt.Fprintf(&b, "  %s\n", down)
	return b.String()
}

// newSuffix marks a file that is being written: it is renamed when complete,
// and removed with the lab when it never was.
const newSuffix = linux.ReplaceSuffix

// writeFile writes beside and renames, and leaves an equal file untouched.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	return linux.ReplaceFile(path, data, mode)
}
