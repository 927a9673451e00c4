package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/fleet/transport"
	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
	"github.com/vsfleet/vsfleet/inventory"
)

// TestSettingsOfSSHConfig compares settings of ours with what ssh would do.
func TestSettingsOfSSHConfig(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	type s = transport.Settings
	for _, row := range []struct {
		name   string
		config string
		host   inventory.Host // Address: web1
		access *Access
		want   s // Name and Address: web1
	}{
		{name: "nothing"},
		{name: "a user", config: "User alice", want: s{User: "alice"}},
		{name: "a user that the inventory overrides", config: "User alice", host: inventory.Host{SSH: inventory.SSH{User: "bob"}}, want: s{User: "bob"}},
		{name: "a user that a flag overrides", config: "User alice", host: inventory.Host{SSH: inventory.SSH{User: "bob"}}, access: &Access{User: "eve"}, want: s{User: "eve"}},
		{name: "a port", config: "Port 2200", want: s{User: "root", Port: 2200}},
		{name: "a port that the inventory overrides", config: "Port 2200", host: inventory.Host{Port: 22, SSH: inventory.SSH{Port: 22}}, want: s{User: "root", Port: 22}},
		{name: "a host name", config: "Host web1\n HostName 192.0.2.1\n", want: s{User: "root", Address: "192.0.2.1"}},
		{name: "a name in known_hosts", config: "HostKeyAlias Web.Example.NET", want: s{User: "root", HostKeyAlias: "web.example.net"}},
		{name: "identities with tokens", config: "IdentityFile ~/.ssh/%r@%h\nIdentityFile %d/%n-%p\nPort 2200\nHostName 192.0.2.1",
			want: s{User: "root", Port: 2200, Address: "192.0.2.1", Keys: transport.Keys{Identities: []string{"~/.ssh/root@192.0.2.1", home + "/web1-2200"}}}},
		{name: "no identity", config: "IdentityFile none", want: s{User: "root", Keys: transport.Keys{Identities: []string{}}}},
		{name: "identities only", config: "IdentitiesOnly yes\nCertificateFile ~/cert\nIdentityAgent /run/agent",
			want: s{User: "root", Keys: transport.Keys{Only: true, Certificates: []string{"~/cert"}, Agent: "/run/agent"}}},
		{name: "an identity of the inventory beside others", config: "IdentityFile ~/a", host: inventory.Host{SSH: inventory.SSH{Identity: "~/b"}},
			want: s{User: "root", Identity: "~/b", Keys: transport.Keys{Identities: []string{"~/a"}}}},
		{name: "files of host keys", config: "UserKnownHostsFile ~/known /etc/known\nHashKnownHosts yes\nRevokedHostKeys ~/revoked",
			want: s{User: "root", HostKeys: transport.HostKeys{Files: []string{home + "/known", "/etc/known", "/etc/ssh/ssh_known_hosts"}, Hash: true, Revoked: "~/revoked"}}},
		{name: "no file of host keys", config: "UserKnownHostsFile none\nGlobalKnownHostsFile /dev/null",
			want: s{User: "root", HostKeys: transport.HostKeys{Files: []string{"/dev/null", "/dev/null"}}}},
		{name: "a file of the machine", config: "GlobalKnownHostsFile /etc/known",
			want: s{User: "root", HostKeys: transport.HostKeys{Files: []string{"~/.ssh/known_hosts", "/etc/known"}}}},
		{name: "a proxy command", config: "ProxyCommand nc -x proxy:3128 %h %p %%h", want: s{User: "root", ProxyCommand: "nc -x proxy:3128 web1 22 %h"}},
		{name: "a proxy command that a jump replaces", config: "ProxyCommand nc %h %p", host: inventory.Host{SSH: inventory.SSH{Jump: "none"}}, want: s{User: "root"}},
		{name: "the network", config: "AddressFamily inet\nBindAddress 127.0.0.1", want: s{User: "root", Network: "tcp4", BindAddress: "127.0.0.1"}},
		{name: "the socket of a running ssh", config: "ControlMaster auto\nControlPath /run/fleet-master", want: s{User: "root", ControlPath: "/run/fleet-master"}},
		{name: "ways to log in", config: "PasswordAuthentication no\nKbdInteractiveAuthentication no", want: s{User: "root", NoPassword: true, NoKeyboardInteractive: true}},
		{name: "times", config: "ServerAliveInterval 20\nConnectTimeout 7", want: s{User: "root", KeepAlive: 20 * time.Second, ConnectTimeout: 7 * time.Second}},
		{name: "a time that a flag overrides", config: "ConnectTimeout 7", access: &Access{ConnectTimeout: time.Second}, want: s{User: "root", ConnectTimeout: time.Second}},
		{name: "algorithms", config: "Ciphers aes256-ctr\nMACs hmac-sha2-256\nKexAlgorithms curve25519-sha256\nHostKeyAlgorithms ssh-ed25519\nPubkeyAcceptedAlgorithms rsa-sha2-512",
			want: s{User: "root", Algorithms: transport.Algorithms{HostKeys: "ssh-ed25519", KeyExchanges: "curve25519-sha256", Ciphers: "aes256-ctr", MACs: "hmac-sha2-256", PublicKeys: "rsa-sha2-512"}}},
		{name: "a jump host", config: "Host web1\n ProxyJump gate\nHost gate\n HostName 192.0.2.9\n User ops\n Port 2200\n IdentityFile ~/gate\n",
			want: s{User: "root", Via: &s{Name: "jump host gate", Address: "192.0.2.9", User: "ops", Port: 2200, Keys: transport.Keys{Identities: []string{"~/gate"}}}}},
		{name: "a jump host of all", config: "ProxyJump gate", want: s{User: "root", Via: &s{Name: "jump host gate", Address: "gate", User: "root"}}},
		{name: "a jump host that jumps", config: "Host web1\n ProxyJump gate\nHost gate\n ProxyJump ops@outer:2200\n",
			want: s{User: "root", Via: &s{Name: "jump host gate", Address: "gate", User: "root", Via: &s{Name: "jump host outer", Address: "outer", User: "ops", Port: 2200}}}},
		{name: "a jump of the inventory", config: "ProxyJump gate", host: inventory.Host{SSH: inventory.SSH{Jump: "none"}}, want: s{User: "root"}},
		{name: "a jump host takes what the inventory gives the host behind it", config: "Host other\n User x\n",
			host: inventory.Host{SSH: inventory.SSH{Jump: "gate", User: "bob", Identity: "~/b", KnownHosts: "known"}},
			want: s{User: "bob", Identity: "~/b", KnownHosts: "known", Via: &s{Name: "jump host gate", Address: "gate", User: "bob", Identity: "~/b", KnownHosts: "known"}}},
		{name: "a match by the user of the inventory", config: "Match user bob\n Port 2200\n", host: inventory.Host{SSH: inventory.SSH{User: "bob"}}, want: s{User: "bob", Port: 2200}},
		{name: "config none", config: "User alice", access: &Access{Config: "none"}, want: s{}},
	} {
		for _, program := range []string{"", "none"} {
			t.Run(row.name+map[string]string{"none": ", without OpenSSH"}[program], func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "config")
				if err := os.WriteFile(file, []byte(row.config+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				a := new(Access)
				if row.access != nil {
					a.User, a.Config, a.ConnectTimeout = row.access.User, row.access.Config, row.access.ConnectTimeout
				}
				a.config.Program = program
				h := row.host
				h.Name, h.Address, h.SSH.Config = "web1", "web1", file
				if h.Port == 0 {
					h.Port = 22
				}
				got, err := a.settings(t.Context(), &h)
				if err != nil {
					t.Fatal(err)
				}
				want := row.want
				want.Name = "web1"
				if want.Address == "" {
					want.Address = "web1"
				}
				if program == "none" && len(want.HostKeys.Files) > 0 { // ssh prints the home directory's name
					for i, f := range got.HostKeys.Files {
						got.HostKeys.Files[i] = strings.Replace(f, "~", home, 1)
					}
					for i, f := range want.HostKeys.Files {
						want.HostKeys.Files[i] = strings.Replace(f, "~", home, 1)
					}
				}
				if program == "" { // of the user database, whatever $HOME is
					for i, f := range got.HostKeys.Files {
						got.HostKeys.Files[i] = strings.Replace(f, "/root/", home+"/", 1)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestASSHConfigThatCannotBeUsed(t *testing.T) {
	for _, row := range []struct{ name, config, want string }{
		{"a circle of jump hosts", "Host web1 b\n ProxyJump a\nHost a\n ProxyJump b\n", "each behind another"},
		{"what vsfleet cannot do", "ProxyUseFdpass yes\nProxyCommand nc -F %h %p\n", "ssh_config: proxyusefdpass yes: vsfleet does not support that"},
		{"a mistake", "Prot 22\n", "Bad configuration option: prot"},
	} {
		t.Run(row.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, []byte(row.config), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := (&Access{Config: file}).settings(t.Context(), &inventory.Host{Name: "web1", Address: "web1", Port: 22})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

func TestTwoHostsThatAreOneMachine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("Host web*\n HostName 192.0.2.1\n IdentityFile none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &Access{Config: file, Password: "secret"}
	web1, web2 := &inventory.Host{Name: "web1", Address: "web1", Port: 22}, &inventory.Host{Name: "web2", Address: "web2", Port: 22}
	if err := a.Verify(t.Context(), []*inventory.Host{web1, web1}); err != nil {
		t.Errorf("the same host twice: %v", err)
	}
	if err := a.Verify(t.Context(), []*inventory.Host{web1, web2}); err == nil || !strings.Contains(err.Error(), "hosts web1 and web2 are both at 192.0.2.1:22 by ssh_config") {
		t.Errorf("error %v", err)
	}
}

func TestWhatHasNoEffectIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("Compression yes\nLocalForward 8080 localhost:80\nVerifyHostKeyDNS yes\nUser alice\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &Access{Config: file}
	for range 2 {
		if _, err := a.settings(t.Context(), &inventory.Host{Name: "web1", Address: "web1"}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"ssh_config: compression yes: vsfleet has no such thing, and goes on without",
		"ssh_config: verifyhostkeydns true: vsfleet has no such thing, and goes on without",
	}
	if diff := cmp.Diff(want, a.Notes()); diff != "" {
		t.Error(diff)
	}
}

func TestKeywordsOfSSH(t *testing.T) {
	for _, keyword := range used {
		for _, other := range elsewhere {
			if keyword == other {
				t.Errorf("%s is in both lists", keyword)
			}
		}
	}
}

// A host that only ssh_config knows how to reach.
func TestRunByAnAlias(t *testing.T) {
	s := sshtest.Start(t, sshtest.Options{})
	file := filepath.Join(t.TempDir(), "config")
	config := fmt.Sprintf("Host web*\n HostName 127.0.0.1\n Port %d\n IdentityFile %s\n IdentitiesOnly yes\n UserKnownHostsFile %s\n", s.Port, s.Identity, s.KnownHosts)
	proxied := config + "Match host 127.0.0.1 originalhost web2\n ProxyCommand bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3'\n"
	for name, text := range map[string]string{"web1": config, "web2": proxied} {
		t.Setenv("SSH_AUTH_SOCK", "")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		host := &inventory.Host{Name: name, Address: name, Port: 22, SSH: inventory.SSH{Config: file}}
		exit, err := new(Access).Run(t.Context(), Command{Host: host, Argv: []string{"echo $USER"}}, nil, &out, &out)
		if err != nil || exit != 0 || out.String() != "root\n" {
			t.Errorf("%s: exit %d, %q, %v", name, exit, out.String(), err)
		}
	}
}
