package report

import (
	"maps"
	"slices"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/inventory"
)

// HostRecord is a host of the inventory.
type HostRecord struct {
	Host    string            `json:"host"`
	Address string            `json:"address"`
	Port    int               `json:"port"`
	Groups  []string          `json:"groups"`
	Labels  map[string]string `json:"labels"`
	Guests  []string          `json:"guests"`
}

// WantedRecord is a guest as the inventory wants it.
type WantedRecord struct {
	Host    string `json:"host"`
	Guest   string `json:"guest"`
	Context int    `json:"context"` // 0: the host chooses
	Image   string `json:"image"`
	setting.Record
	Files []string `json:"files,omitempty"` // their paths; contents are not listed
	State string   `json:"state"`
}

// HostRecords returns the records of hosts.
func HostRecords(hosts []*inventory.Host) []HostRecord {
	var records []HostRecord
	for _, h := range hosts {
		r := HostRecord{Host: h.Name, Address: h.Address, Port: h.Port, Groups: h.Groups, Labels: h.Labels}
		for _, g := range h.Guests {
			r.Guests = append(r.Guests, g.Name)
		}
		records = append(records, r)
	}
	return records
}

// WantedRecords returns the records of the guests of hosts.
func WantedRecords(hosts []*inventory.Host) []WantedRecord {
	var records []WantedRecord
	for _, h := range hosts {
		for _, g := range h.Guests {
			records = append(records, wanted(h, g))
		}
	}
	return records
}

func wanted(h *inventory.Host, g *inventory.Guest) WantedRecord {
	r := WantedRecord{Host: h.Name, Guest: g.Name, Context: g.Context, Image: g.Image, Record: g.Record(), State: g.State}
	for _, f := range g.Files {
		r.Files = append(r.Files, f.Path)
	}
	if g.HostAddress {
		r.Addresses = []string{"host"}
	}
	return r
}

// ResolvedRecord is all that the inventory says of a host, and where.
type ResolvedRecord struct {
	HostRecord
	At     string                   `json:"at"`
	SSH    SSHRecord                `json:"ssh"`
	Netdev string                   `json:"netdev,omitempty"`
	Vars   map[string]inventory.Var `json:"vars"`
	Wanted []WantedRecord           `json:"wanted"`
}

// VarRecord is a variable of a host, and where it was given.
type VarRecord struct {
	Host  string        `json:"host"`
	Name  string        `json:"name"`
	Value inventory.Var `json:"value"`
	From  string        `json:"from"`
}

// VarRecords returns the variables of hosts by name.
func VarRecords(hosts []*inventory.Host) []VarRecord {
	var records []VarRecord
	for _, h := range hosts {
		for _, name := range slices.Sorted(maps.Keys(h.Vars)) {
			v := h.Vars[name]
			records = append(records, VarRecord{h.Name, name, v, v.From.String()})
		}
	}
	return records
}

// SSHRecord is how a host is reached, as far as the inventory says it.
type SSHRecord struct {
	User       string `json:"user,omitempty"`
	Identity   string `json:"identity,omitempty"`
	KnownHosts string `json:"knownHosts,omitempty"`
	Jump       string `json:"jump,omitempty"`
	Alias      string `json:"hostKeyAlias,omitempty"`
	Config     string `json:"config,omitempty"`
	HostKey    string `json:"hostKey,omitempty"`
	Become     bool   `json:"become"`
	Method     string `json:"becomeMethod,omitempty"`
}

// ResolvedRecords returns all that the inventory says of hosts.
func ResolvedRecords(hosts []*inventory.Host) []ResolvedRecord {
	var records []ResolvedRecord
	for i, r := range HostRecords(hosts) {
		h := hosts[i]
		records = append(records, ResolvedRecord{
			HostRecord: r,
			At:         h.Pos.String(),
			SSH:        SSHRecord{h.SSH.User, h.SSH.Identity, h.SSH.KnownHosts, h.SSH.Jump, h.SSH.HostKeyAlias, h.SSH.Config, h.SSH.HostKey, h.Become, h.SSH.BecomeMethod},
			Netdev:     h.Netdev, Vars: h.Vars,
			Wanted: WantedRecords(hosts[i : i+1]),
		})
	}
	return records
}
