package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
	"github.com/vsfleet/vsfleet/inventory"
)

// Two hosts, a bastion, and one behind it that only the bastion can show.
func TestTrust(t *testing.T) {
	known := filepath.Join(t.TempDir(), "new", "known_hosts")
	a := Access{Config: "none"}
	add := func(name, jump string) *sshtest.Server {
		s := sshtest.Start(t, sshtest.Options{})
		a.Hosts = append(a.Hosts, &inventory.Host{
			Name: name, Address: "127.0.0.1", Port: s.Port,
			SSH: inventory.SSH{Identity: s.Identity, KnownHosts: known, Jump: jump},
		})
		return s
	}
	web, gate := add("web", ""), add("gate", "gate")
	add("inner", "gate")
	states := func() string {
		keys, err := a.HostKeys(t.Context(), a.Hosts, 8)
		if err != nil {
			t.Fatal(err)
		}
		var fields []string
		for _, k := range keys {
			fields = append(fields, fmt.Sprintf("%s %s", k.Host, k.State))
			if (k.State == KeyHidden || k.State == KeyChanged || k.State == KeyMissing) != (k.Err != nil) {
				t.Errorf("%s is %s, error %v", k.Host, k.State, k.Err)
			}
			if k.State == KeyNew && (k.Type != "ssh-ed25519" || !strings.HasPrefix(k.Fingerprint, "SHA256:") || k.File != known) {
				t.Errorf("%+v", k)
			}
		}
		return strings.Join(fields, ", ")
	}
	trust := func(names ...string) {
		keys, err := a.HostKeys(t.Context(), a.Hosts, 8)
		if err != nil {
			t.Fatal(err)
		}
		var chosen []HostKey
		for _, k := range keys {
			for _, name := range names {
				if k.Host == name {
					chosen = append(chosen, k)
				}
			}
		}
		if err := a.Trust(t.Context(), chosen); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want string) {
		t.Helper()
		if got := states(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	want("web new, gate new, inner hidden")
	if _, err := os.Stat(known); err == nil {
		t.Error("looking made a file")
	}
	trust("gate")
	want("web new, gate known, inner new")
	trust("web", "inner")
	want("web known, gate known, inner known")
	if strings.Contains(web.Log(), "Accepted") {
		t.Error("it logged in to a host to see its key")
	}
	conn, err := a.Dial(t.Context(), a.Hosts[2])
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()

	b, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(b), fmt.Sprintf("[127.0.0.1]:%d", gate.Port), fmt.Sprintf("[127.0.0.1]:%d", web.Port), 1)
	old = strings.Replace(old, web.KnownHostsLine(web.HostKey.PublicKey()), "", 1)
	if err := os.WriteFile(known, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	a = Access{Hosts: a.Hosts, Config: "none"}
	want("web changed, gate new, inner hidden")
	trust("web")
	if b, err := os.ReadFile(known); err != nil || string(b) != old {
		t.Errorf("a changed key was replaced: error %v", err)
	}
}
