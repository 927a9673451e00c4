// Package health defines when a guest counts as healthy. Its types are read from an
// inventory and sent to a host.
package health

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Health defines when a guest counts as healthy after a change: when all checks have
// passed for some time.
type Health struct {
	Checks     []Check       `json:"checks"`
	HealthyFor time.Duration `json:"healthyFor,omitempty"` // how long all checks must pass; 0: once
	Deadline   time.Duration `json:"deadline"`             // for all of that, HealthyFor included
}

// Check is one condition. Exactly one field is set.
type Check struct {
	Exec  []string       `json:"exec,omitempty"` // a command in the guest, as its root, that exits with 0
	TCP   netip.AddrPort `json:"tcp,omitzero"`   // a program of the guest accepts connections
	HTTP  *HTTP          `json:"http,omitempty"`
	Unit  string         `json:"unit,omitempty"`  // of the guest's systemd, that is active
	Ready bool           `json:"ready,omitempty"` // the guest's init has sent READY=1 since it was started
}

// HTTP is a GET request of plain HTTP, from the guest's own network.
type HTTP struct {
	Addr   netip.AddrPort `json:"addr"`
	Host   string         `json:"host"`             // and port, as the URL has it
	Path   string         `json:"path"`             // and query, as the URL has it
	Status int            `json:"status,omitempty"` // of the answer; 0: 200 to 399
}

// String describes the check for people: "http http://127.0.0.1/healthz".
func (c Check) String() string {
	switch {
	case c.Exec != nil:
		return "exec " + strings.Join(c.Exec, " ")
	case c.TCP.IsValid():
		return "tcp " + c.TCP.String()
	case c.HTTP != nil:
		text := "http http://" + c.HTTP.Host + c.HTTP.Path
		if c.HTTP.Status != 0 {
			text += " (status " + strconv.Itoa(c.HTTP.Status) + ")"
		}
		return text
	case c.Unit != "":
		return "unit " + c.Unit
	}
	return "READY=1"
}

// String describes the checks for people.
func (h *Health) String() string {
	var list []string
	for _, c := range h.Checks {
		list = append(list, c.String())
	}
	text := strings.Join(list, ", ")
	if h.HealthyFor > 0 {
		text += ", for " + h.HealthyFor.String()
	}
	return text
}

// NeedsReady reports whether a check waits for READY=1.
func (h *Health) NeedsReady() bool {
	for _, c := range h.Checks {
		if c.Ready {
			return true
		}
	}
	return false
}

// Patience returns the deadline, or DefaultDeadline if it is unset.
func (h *Health) Patience() time.Duration { return cmp.Or(h.Deadline, DefaultDeadline) }

// DefaultDeadline is how long a guest may take to become healthy if no deadline is set.
const DefaultDeadline = 2 * time.Minute
