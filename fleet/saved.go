package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vsfleet/vsfleet/fleet/report"
	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/inventory"
)

// SavedPlan is a plan in a file, to be carried out later exactly as it is. It has the
// description of each step and a digest of what the step does. The files of guests are
// read from the inventory when the plan is carried out.
type SavedPlan struct {
	Format      string     `json:"format"`
	Version     string     `json:"version"`     // of vsfleet
	Inventories []string   `json:"inventories"` // absolute, except those that are no files
	Prune       bool       `json:"prune"`
	Plan        report.Run `json:"plan"`
}

// savedFormat changes when older plans can no longer be compared with new ones.
const savedFormat = "vsfleet-plan-1"

// mostPlan bounds the size of a plan file: 1,000 hosts with 100 steps each need a third
// of it.
const mostPlan = 256 << 20

// WritePlan writes a plan to a file that only its owner can read. Hosts without a plan
// are left out.
func WritePlan(path string, p SavedPlan) error {
	p.Format = savedFormat
	hosts := p.Plan.Hosts
	p.Plan.Hosts = nil
	for _, h := range hosts {
		if h.Planned() || len(h.Refused) > 0 {
			p.Plan.Hosts = append(p.Plan.Hosts, h)
		}
	}
	if p.Plan.Hosts == nil {
		return fmt.Errorf("save the plan in %s: no host has one", path)
	}
	for i, name := range p.Inventories {
		if _, err := os.Stat(name); err != nil {
			continue // a list of hosts, not a file
		}
		var err error
		if p.Inventories[i], err = filepath.Abs(name); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err
	}
	err = linux.ReplaceFileSync(path, 0o600, func(f *os.File) error {
		_, err := f.Write(append(b, '\n'))
		return err
	})
	if err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	return nil
}

// ReadPlan reads a plan that this version of vsfleet has written.
func ReadPlan(path, version string) (SavedPlan, error) {
	p, err := readPlan(path)
	switch {
	case err != nil:
		return p, fmt.Errorf("read the plan %s: %w", path, err)
	case p.Version != version:
		return p, fmt.Errorf("the plan %s was made by vsfleet %s, this is %s: plan again", path, p.Version, version)
	}
	return p, nil
}

func readPlan(path string) (p SavedPlan, err error) {
	f, err := os.Open(path)
	if err != nil {
		return p, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostPlan+1))
	if err != nil {
		return p, err
	}
	if len(b) > mostPlan {
		return p, fmt.Errorf("it is larger than %d bytes", mostPlan)
	}
	return decodePlan(b)
}

func decodePlan(b []byte) (p SavedPlan, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	err = d.Decode(&p)
	switch {
	case err != nil || p.Format == "":
		return p, errors.New("it is not a plan that vsfleet plan --out has saved")
	case p.Format != savedFormat:
		return p, fmt.Errorf("its format is %s, not %s: plan again", p.Format, savedFormat)
	case len(p.Plan.Hosts) == 0:
		return p, errors.New("it has no hosts")
	}
	return p, nil
}

// Hosts returns the hosts of the plan, as the inventory has them now.
func (p SavedPlan) Hosts(inv *inventory.Inventory) ([]*inventory.Host, error) {
	byName := map[string]*inventory.Host{}
	for _, h := range inv.Hosts {
		byName[h.Name] = h
	}
	var list []*inventory.Host
	for _, h := range p.Plan.Hosts {
		host := byName[h.Name]
		if host == nil {
			return nil, fmt.Errorf("host %s of the saved plan is not in the inventory any more: plan again", h.Name)
		}
		list = append(list, host)
	}
	return list, nil
}
