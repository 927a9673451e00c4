package convert

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vsfleet/vsfleet/fleet/sshconfig"
	"github.com/vsfleet/vsfleet/inventory"
	"github.com/vsfleet/vsfleet/inventory/inventorytest"
	"github.com/vsfleet/vsfleet/inventory/program"
)

// load reads a draft as the fleet.yml that it is to become.
func load(t *testing.T, d *Draft) (*inventory.Inventory, string) {
	t.Helper()
	data, err := d.YAML()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fleet.yml") // beside no group_vars
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(path)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return inv, string(data)
}

// TestStrangersInventoriesAreTheSameAsAFleet imports each inventory of Ansible's that
// can be read and compares what the fleet.yml gives with what it was made from.
func TestStrangersInventoriesAreTheSameAsAFleet(t *testing.T) {
	for _, s := range inventorytest.Strangers(t) {
		if s.Refused != "" {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Chdir(s.Dir)
			from, err := inventory.Loader{Run: program.Runner(t.Context(), time.Minute)}.Load(s.Sources...)
			if err != nil {
				t.Fatal(err)
			}
			d, err := Inventory(from, s.Sources)
			if err != nil {
				if len(from.Hosts) > 0 {
					t.Fatal(err)
				}
				return
			}
			to, text := load(t, d)
			opts := cmp.Options{cmpopts.IgnoreTypes(inventory.Position{}), cmpopts.IgnoreUnexported(inventory.Var{}), cmpopts.IgnoreFields(inventory.Var{}, "Text"), cmpopts.EquateEmpty()}
			for i, h := range from.Hosts {
				want, got := *h, *to.Hosts[i]
				want.Vars, want.Groups = map[string]inventory.Var{}, nil
				for name, v := range h.Vars {
					if !strings.HasPrefix(name, "ansible_") && !strings.Contains(strings.Join(d.Left, "\n"), "variable "+name+": ") {
						want.Vars[name] = v
					}
				}
				want.SSH.Identity, got.SSH.Identity = filepath.Base(want.SSH.Identity), filepath.Base(got.SSH.Identity)
				if want.SSH.Port == 22 {
					want.SSH.Port = 0 // which is the default
				}
				for _, g := range h.Groups {
					if strings.Contains(strings.Join(d.Left, "\n"), "group "+g+": a host") {
						g += "-group"
					}
					want.Groups = append(want.Groups, g)
				}
				if d := cmp.Diff(want, got, opts); d != "" {
					t.Errorf("Ansible's (-), ours (+):\n%s\n%s", d, text)
				}
			}
		})
	}
}

func TestSSHConfig(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(`
Host gate
    HostName gate.example.net
    User ops
    Port 2222
Host web1 web2
    HostName %h.example.net
    ProxyJump gate
Host db
    HostName 192.0.2.7
    ProxyCommand ssh -W %h:%p gate
    LocalForward 5432 localhost:5432
Host db-alias
    HostName 192.0.2.7
    ProxyJump gate
Host odd
    ProxyCommand nc -x proxy:1080 %h %p
    StrictHostKeyChecking no
Host *.internal !bad
    User inside
Match host x
    User y
Host *
    User root
    IdentityFile ~/.ssh/id_fleet
    ServerAliveInterval 30
`), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := SSHConfig(t.Context(), &sshconfig.Resolver{Program: "none", Home: dir, System: filepath.Join(dir, "none")}, config)
	if err != nil {
		t.Fatal(err)
	}
	_, text := load(t, d)
	want := `# Made from CONFIG by vsfleet inventory import.
ssh:
  identity: ~/.ssh/id_fleet
hosts:
  gate: {address: gate.example.net, user: ops, port: 2222}
  web1: {address: web1.example.net, user: root, jump: gate}
  web2: {address: web2.example.net, user: root, jump: gate}
  db: {address: 192.0.2.7, user: root, jump: gate}
  odd: {user: root}
`
	if diff := cmp.Diff(want, strings.ReplaceAll(text, config, "CONFIG")); diff != "" {
		t.Error(diff)
	}
	left := strings.ReplaceAll(strings.Join(d.Left, "\n"), config, "CONFIG")
	wantLeft := `CONFIG:19: Host *.internal: a pattern, whose settings are in the hosts that match it
CONFIG:19: Host !bad: a pattern, whose settings are in the hosts that match it
CONFIG:21: Match host x: names no host
db: localforward 5432 localhost:5432: fleet.yml has no key for it
db-alias: it is the same machine as db, at 192.0.2.7
odd: ProxyCommand nc -x proxy:1080 %h %p: it does more than ssh through a jump host
odd: StrictHostKeyChecking no: host keys are always checked`
	if diff := cmp.Diff(wantLeft, left); diff != "" {
		t.Error(diff)
	}
}

func TestKnownHosts(t *testing.T) {
	d, err := knownHosts("known_hosts", `# comment
web1.example.net,192.0.2.1 ssh-ed25519 AAAA
web1.example.net,192.0.2.1 ecdsa-sha2-nistp256 AAAA
[gate.example.net]:2222,[192.0.2.9]:2222 ssh-ed25519 AAAA
192.0.2.5 ssh-ed25519 AAAA
2001:db8::7 ssh-ed25519 AAAA
192.0.2.1 ssh-rsa AAAA
web1.example.net ssh-rsa AAAA
|1|c2FsdA==|aGFzaA== ssh-ed25519 AAAA
|1|c2FsdA==|aGFzaQ== ssh-ed25519 AAAA
@cert-authority *.example.net ssh-ed25519 AAAA
@revoked * ssh-ed25519 AAAA
*.wild.net ssh-ed25519 AAAA
broken
`)
	if err != nil {
		t.Fatal(err)
	}
	_, text := load(t, d)
	if diff := cmp.Diff(`# Made from known_hosts by vsfleet inventory import.
hosts:
  web1.example.net: {address: 192.0.2.1}
  gate.example.net: {address: 192.0.2.9, port: 2222}
  192.0.2.5: {}
  2001-db8--7: {address: '2001:db8::7'}
`, text); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{
		"known_hosts:11: @cert-authority *.example.net: no host by itself",
		"known_hosts:12: @revoked *: no host by itself",
		"known_hosts:13: *.wild.net: a pattern",
		"known_hosts: 2 lines with hashed names, which cannot be read back",
	}, d.Left); diff != "" {
		t.Error(diff)
	}
}

func TestNothingToImport(t *testing.T) {
	dir := t.TempDir()
	if _, err := SSHConfig(t.Context(), &sshconfig.Resolver{Program: "none", Home: dir, System: filepath.Join(dir, "none")}, ""); err == nil || err.Error() != "~/.ssh/config does not exist: name the file to import" {
		t.Error(err)
	}
	if _, err := knownHosts("known_hosts", "|1|a|b ssh-ed25519 AAAA\n"); err == nil || err.Error() != "known_hosts has no host names that are not hashed" {
		t.Error(err)
	}
	inv := &inventory.Inventory{}
	if _, err := Inventory(inv, []string{"hosts"}); err == nil || err.Error() != "hosts has no hosts" {
		t.Error(err)
	}
}
