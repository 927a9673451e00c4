package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// state holds what must survive a reboot so that a lab comes back with the same
// addresses. Everything else is derived from it or read from the kernel.
type state struct {
	Name   string       `json:"name"`
	Subnet netip.Prefix `json:"subnet"`
	Hosts  int          `json:"hosts"`
}

const stateFile = "lab.json"

// readState returns nil when there is no lab in dir.
func readState(dir string) (*state, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	if err := checkName(s.Name); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	if !s.Subnet.Addr().Is4() || s.Hosts < 1 || s.Hosts > capacity(s.Subnet) {
		return nil, fmt.Errorf("%s: no room for %d hosts in %s", filepath.Join(dir, stateFile), s.Hosts, s.Subnet)
	}
	return &s, nil
}

func (s *state) write(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, stateFile), append(data, '\n'), 0o600)
}

// address of host n, counted from 1; the bridge has the first address.
func (s *state) address(n int) netip.Addr {
	a := s.Subnet.Masked().Addr()
	for range n + 1 {
		a = a.Next()
	}
	return a
}

func (s *state) gateway() netip.Addr { return s.address(0) }

// capacity returns the number of hosts that fit into the subnet: its first address
// names the net, the second is the bridge's, the last one is for broadcasts.
func capacity(subnet netip.Prefix) int { return 1<<(32-subnet.Bits()) - 3 }
