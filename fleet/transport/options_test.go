package transport

import (
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// TestOrderOfKeys compares the keys that are offered with those of ssh -v.
func TestOrderOfKeys(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d", "id_ed25519"} {
		_, file[name] = sshtest.NewKey(t, filepath.Join(dir, ".ssh"), name)
	}
	ca, _ := sshtest.NewKey(t, dir, "ca")
	certified, certifiedFile := sshtest.NewKey(t, dir, "certified")
	cert := filepath.Join(dir, "elsewhere-cert.pub")
	certify(t, cert, ca, certified.PublicKey(), ssh.UserCert, time.Now().Add(time.Hour), "root")
	agent := serveAgent(t, file["c"], file["b"], file["d"])
	for _, row := range []struct {
		name string
		s    Settings
		want string // the last parts of the names
		skip string // a key that is named as left out
	}{
		{name: "the agent's keys, then those of ~/.ssh", want: "agent agent agent id_ed25519"},
		{name: "the agent's that a file names come first", s: Settings{Keys: Keys{Identities: []string{file["a"], file["b"], file["c"]}}}, want: "b c agent a"},
		{name: "identities only", s: Settings{Keys: Keys{Identities: []string{file["a"], file["b"]}, Only: true}}, want: "a b"},
		{name: "identities that do not exist are left out", s: Settings{Keys: Keys{Identities: []string{file["a"], "/no/such/key"}, Only: true}}, want: "a", skip: "/no/such/key"},
		{name: "no agent", s: Settings{Keys: Keys{Agent: "none"}}, want: "id_ed25519"},
		{name: "another agent", s: Settings{Keys: Keys{Agent: serveAgent(t, file["a"]), Identities: []string{file["a"]}}}, want: "a"},
		{name: "an agent by a variable", s: Settings{Keys: Keys{Agent: "$OTHER_AGENT", Identities: []string{file["d"]}, Only: true}}, want: "d"},
		{name: "a certificate that is not beside its key", s: Settings{Keys: Keys{Certificates: []string{cert}, Identities: []string{certifiedFile}, Only: true}}, want: "elsewhere-cert.pub certified"},
		{name: "a certificate without its key", s: Settings{Keys: Keys{Certificates: []string{cert}, Identities: []string{file["a"]}, Only: true}}, want: "a", skip: "neither the agent nor a key file has its key"},
		{name: "an identity alone", s: Settings{Identity: file["a"], Keys: Keys{Identities: []string{file["b"]}}}, want: "a"},
		{name: "algorithms that leave keys out", s: Settings{Algorithms: Algorithms{PublicKeys: "rsa-sha2-*"}, Keys: Keys{Only: true, Identities: []string{file["a"]}}}, skip: "PubkeyAcceptedAlgorithms leaves it out"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Setenv("OTHER_AGENT", agent)
			o, err := (&Dialer{Agent: agent}).offer(t.Context(), row.s)
			if err != nil {
				if row.want != "" || !strings.Contains(err.Error(), row.skip) {
					t.Fatal(err)
				}
				return
			}
			defer o.Close()
			var got []string
			for _, name := range o.names {
				name, _, _ = strings.Cut(name, " ")
				got = append(got, strings.TrimSuffix(filepath.Base(name), "'s"))
			}
			if strings.Join(got, " ") != row.want {
				t.Errorf("%s, want %s", got, row.want)
			}
			if row.skip != "" && !strings.Contains(strings.Join(o.skipped, ", "), row.skip) {
				t.Errorf("left out are %q, want %q", o.skipped, row.skip)
			}
		})
	}
}

func TestAKeyOnASecurityKeyIsNamed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "id_ed25519_sk")
	write(t, file, "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n")
	write(t, file+".pub", string(ssh.MarshalAuthorizedKey(newAuthenticator(t).PublicKey())))
	_, err := dialer(t).offer(t.Context(), Settings{Identity: file})
	if err == nil || !strings.Contains(err.Error(), "id_ed25519_sk is on a security key and no agent holds it: ssh-add ") {
		t.Errorf("error %v", err)
	}
}

func TestHostKeySettings(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	dir := t.TempDir()
	shown := string(ssh.MarshalAuthorizedKey(server.HostKey.PublicKey()))
	first, second, revoked, krl := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "revoked"), filepath.Join(dir, "krl")
	write(t, second, server.KnownHostsLine(server.HostKey.PublicKey()))
	write(t, revoked, "# stolen\n"+shown)
	odd := filepath.Join(dir, "odd")
	write(t, odd, "nonsense\n")
	write(t, krl, "SSHKRL\n\x00")
	base := settings(server)
	base.KnownHosts = ""
	t.Run("the second file has the key", func(t *testing.T) {
		s := base
		s.HostKeys.Files = []string{first, second}
		dial(t, s)
	})
	t.Run("a key that is revoked", func(t *testing.T) {
		s := base
		s.HostKeys = HostKeys{Files: []string{second}, Revoked: revoked}
		wantUnreachable(t, s, "is revoked by "+revoked)
	})
	for name, file := range map[string]string{"no such file": "/no/such/revoked", "is a KRL": krl, "odd:1": odd} {
		t.Run("a list of revoked keys: "+name, func(t *testing.T) {
			s := base
			s.HostKeys = HostKeys{Files: []string{second}, Revoked: file}
			if err := dialer(t).Check(t.Context(), s); !Local(err) || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("a new key is hashed, and known by that", func(t *testing.T) {
		s := base
		s.HostKeys = HostKeys{Files: []string{first}, Hash: true}
		write(t, first, "web9 "+shown+"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= "+shown)
		d := dialer(t)
		_, err := d.HostKey(t.Context(), s)
		var unknown *UnknownKeyError
		if !errors.As(err, &unknown) {
			t.Fatal(err)
		}
		if want := []string{"web9", first + ":2"}; !slices.Equal(unknown.Others, want) {
			t.Errorf("the same key is known for %q, want %q", unknown.Others, want)
		}
		if err := d.Trust(t.Context(), []*UnknownKeyError{unknown}); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(first); err != nil || strings.Contains(string(b), "127.0.0.1") || strings.Count(string(b), "|1|") != 2 {
			t.Errorf("%s, %v", b, err)
		}
		dial(t, s)
	})
}

func TestAlgorithms(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{Config: []string{"Ciphers aes256-ctr", "KexAlgorithms ecdh-sha2-nistp384", "MACs hmac-sha2-512"}})
	for _, row := range []struct {
		name string
		a    Algorithms
		want string // of an error
	}{
		{name: "the default"},
		{name: "the same", a: Algorithms{Ciphers: "aes256-ctr,aes128-cbc,chacha20-poly1305@openssh.com", KeyExchanges: "ecdh-sha2-*", MACs: "hmac-sha2-512"}},
		{name: "others", a: Algorithms{Ciphers: "aes128-ctr"}, want: "cipher in common"},
		{name: "what is taken away", a: Algorithms{Ciphers: "-aes256-ctr"}, want: "cipher in common"},
		{name: "what comes first", a: Algorithms{KeyExchanges: "^ecdh-sha2-nistp384"}},
		{name: "host keys of another type", a: Algorithms{HostKeys: "rsa-sha2-512"}}, // the known one is better
	} {
		t.Run(row.name, func(t *testing.T) {
			s := settings(server)
			s.Algorithms = row.a
			if row.want == "" {
				dial(t, s)
			} else {
				wantUnreachable(t, s, row.want)
			}
		})
	}
	for option, a := range map[string]Algorithms{
		"Ciphers": {Ciphers: "3des-ctr"}, "KexAlgorithms": {KeyExchanges: "sntrup761x25519-sha512@openssh.com"}, "PubkeyAcceptedAlgorithms": {PublicKeys: "ssh-xmss@openssh.com"},
	} {
		s := settings(server)
		s.Algorithms = a
		if err := dialer(t).Check(t.Context(), s); !Local(err) || !strings.Contains(err.Error(), option+" ") || !strings.Contains(err.Error(), "vsfleet has none of these") {
			t.Errorf("%s: %v", option, err)
		}
	}
}

func TestProxyCommand(t *testing.T) {
	t.Setenv("SHELL", "/bin/sh")
	server := sshtest.Start(t, sshtest.Options{})
	relay := func(after string) string {
		return "bash -c 'exec 3<>/dev/tcp/127.0.0.1/" + portOf(settings(server)) + "; cat <&3 & cat >&3; " + after + "'"
	}
	for _, row := range []struct{ name, command, want string }{
		{"one that leads there", relay(""), ""},
		{"one that does not end", relay("trap : HUP; sleep 1000"), ""},
		{"one that fails", "echo no route to it >&2; exit 1", "the ProxyCommand ended: no route to it"},
		{"one that is not there", "no-such-command %h", "the ProxyCommand ended: "},
		{"one that says nothing", "sleep 1000", "no SSH server spoke: no answer within 300ms"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := settings(server)
			s.ProxyCommand, s.Address = row.command, "web1.invalid"
			s.HostKeyAlias = "web1"
			s.KnownHosts = filepath.Join(t.TempDir(), "known")
			write(t, s.KnownHosts, "web1 "+string(ssh.MarshalAuthorizedKey(server.HostKey.PublicKey())))
			if row.want != "" {
				s.ConnectTimeout = 300 * time.Millisecond
				wantUnreachable(t, s, row.want)
				return
			}
			c := dial(t, s)
			if exit, err := c.Exec(t.Context(), "exit 3", nil, nil, nil); exit != 3 || err != nil {
				t.Errorf("exit %d, %v", exit, err)
			}
			c.Close()
		})
	}
}

func TestKeyFilesThatAreNotUsed(t *testing.T) {
	dir := t.TempDir()
	_, file := sshtest.NewKey(t, dir, "key")
	locked := filepath.Join(dir, "locked")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, locked, string(pem.EncodeToMemory(block)))
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	write(t, file+".pub", public)
	odd := filepath.Join(dir, "odd")
	write(t, odd, public)
	agent := serveAgent(t, file)
	for _, row := range []struct {
		name, file string
		mode       os.FileMode
		owner      int
		agent      string
		want       string // of an error
	}{
		{name: "a key for its owner alone", file: file, mode: 0o600, agent: "none"},
		{name: "a key that nobody can write", file: file, mode: 0o400, agent: "none"},
		{name: "a key that others can read", file: file, mode: 0o604, agent: "none", want: "others can read the private key " + file + ", and ssh does not use it either: chmod 600 " + file},
		{name: "a key that the group can read", file: file, mode: 0o640, agent: "none", want: "chmod 600 " + file},
		{name: "a key that others can read, of another user", file: file, mode: 0o644, owner: 12345, agent: "none"},
		{name: "a key that others can read and the agent holds", file: file, mode: 0o644, agent: agent},
		{name: "a key with a passphrase that others can read", file: locked, mode: 0o644, agent: "none", want: "chmod 600 " + locked},
		{name: "a public key", file: file + ".pub", mode: 0o644, agent: "none", want: file + ".pub is a public key and no agent holds its private key: name the private key (" + file + "), or ssh-add it"},
		{name: "a public key by an odd name", file: odd, mode: 0o644, agent: "none", want: "odd is a public key and no agent holds its private key: name the private key, or ssh-add it"},
		{name: "a public key whose private one the agent holds", file: file + ".pub", mode: 0o644, agent: agent},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := errors.Join(os.Chown(row.file, row.owner, -1), os.Chmod(row.file, row.mode)); err != nil {
				t.Fatal(err)
			}
			d := &Dialer{Agent: row.agent, Ask: func(context.Context, string, bool) (string, error) { t.Error("asked for a passphrase"); return "", nil }}
			o, err := d.offer(t.Context(), Settings{Identity: row.file})
			if err == nil {
				o.Close()
			}
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}
