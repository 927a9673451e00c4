package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What init writes is an inventory without mistakes.
func TestFirst(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first First
		hosts string // names
		err   string
	}{
		{"one host by its address", First{[]string{"203.0.113.11"}, "root", "bookworm", "www", []string{"80", "443/tcp"}, nil}, "host1", ""},
		{"hosts by their names", First{[]string{"web01.example.net", "web02.example.net"}, "admin", "trixie", "www", nil, nil}, "web01 web02", ""},
		{"two hosts with one first label", First{[]string{"web.a.example", "web.b.example"}, "root", "noble", "www", nil, nil}, "web web-2", ""},
		{"an IPv6 address", First{[]string{"2001:db8::1"}, "root", "bookworm", "www", nil, nil}, "host1", ""},
		{"a host of the name all", First{[]string{"all.example.net"}, "root", "bookworm", "www", nil, nil}, "all-2", ""},
		{"more SSH settings", First{[]string{"web01"}, "root", "bookworm", "www", nil, map[string]string{"identity": "/srv/my key", "known_hosts": "~/known: hosts", "jump": "admin@gate:2222"}}, "web01", ""},
		{"no host", First{nil, "root", "bookworm", "www", nil, nil}, "", "no hosts"},
		{"an address that is none", First{[]string{"web 01"}, "root", "bookworm", "www", nil, nil}, "", "web 01"},
		{"a port that is none", First{[]string{"web01"}, "root", "bookworm", "www", []string{"http"}, nil}, "", "http"},
		{"a name that is none", First{[]string{"web01"}, "root", "bookworm", "a: b", nil, nil}, "", "guest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := tt.first.Text()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "fleet.yml")
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			inv, err := Load(path)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			var names []string
			for _, h := range inv.Hosts {
				names = append(names, h.Name)
				if len(h.Guests) != 1 || len(h.Guests[0].Network.Ports) != len(tt.first.Ports) || h.Become != (tt.first.User != "root") {
					t.Errorf("%+v", h)
				}
				if ssh := tt.first.SSH; h.SSH.Identity != ssh["identity"] || h.SSH.KnownHosts != ssh["known_hosts"] || h.SSH.Jump != ssh["jump"] {
					t.Errorf("identity %q, known_hosts %q, jump %q", h.SSH.Identity, h.SSH.KnownHosts, h.SSH.Jump)
				}
			}
			if got := strings.Join(names, " "); got != tt.hosts {
				t.Errorf("hosts %s, want %s", got, tt.hosts)
			}
		})
	}
}
