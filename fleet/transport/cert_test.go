package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// certify signs a key as an authority does, and writes the certificate.
func certify(t *testing.T, file string, ca ssh.Signer, key ssh.PublicKey, kind uint32, until time.Time, names ...string) {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key, CertType: kind, KeyId: "test", ValidPrincipals: names,
		ValidAfter: uint64(time.Now().Add(-48 * time.Hour).Unix()), ValidBefore: uint64(until.Unix()),
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	write(t, file, string(ssh.MarshalAuthorizedKey(cert)))
}

func TestUserCertificates(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	ca, caFile := sshtest.NewKey(t, dir, "ca")
	server := sshtest.Start(t, sshtest.Options{Config: []string{"TrustedUserCAKeys " + caFile + ".pub"}})
	tomorrow, yesterday := time.Now().Add(24*time.Hour), time.Now().Add(-24*time.Hour)
	user := func(name string, until time.Time, of string) string {
		key, file := sshtest.NewKey(t, dir, name)
		if of == "other" {
			key, _ = sshtest.NewKey(t, dir, "other")
		}
		certify(t, file+"-cert.pub", ca, key.PublicKey(), ssh.UserCert, until, "root")
		return file
	}
	good, old, wrong := user("good", tomorrow, ""), user("old", yesterday, ""), user("wrong", tomorrow, "other")
	for _, row := range []struct {
		name, identity string
		agent          []string
		want           []string // of an error
	}{
		{name: "a certificate beside the key is offered", identity: good},
		{name: "so it is where the certificate is named", identity: good + "-cert.pub"},
		{name: "and where the agent holds the key", identity: good + ".pub", agent: []string{good}},
		{name: "one that has run out is told", identity: old, want: []string{"permission denied", "old-cert.pub: it was valid until " + yesterday.Format(time.DateOnly)}},
		{name: "one of another key is told", identity: wrong, want: []string{"permission denied", "wrong-cert.pub: it is not a certificate of"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := Dialer{Agent: serveAgent(t, row.agent...)}
			s := settings(server)
			s.Identity = row.identity
			c, err := d.Dial(t.Context(), s)
			if err == nil {
				defer c.Close()
			}
			if (err == nil) != (row.want == nil) {
				t.Fatalf("error %v", err)
			}
			for _, w := range row.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q\ndoes not say %q", err, w)
				}
			}
		})
	}
	t.Run("what is no certificate is an error of this machine", func(t *testing.T) {
		_, file := sshtest.NewKey(t, dir, "plain")
		write(t, file+"-cert.pub", "nonsense")
		s := settings(server)
		s.Identity = file
		if err := dialer(t).Check(t.Context(), s); !Local(err) || !strings.Contains(err.Error(), "plain-cert.pub") {
			t.Errorf("error %v", err)
		}
	})
}

func TestHostCertificates(t *testing.T) {
	dir := t.TempDir()
	ca, _ := sshtest.NewKey(t, dir, "ca") // ed25519
	another, _ := sshtest.NewKey(t, dir, "another")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// The authority's key is of another type than the keys that it signs.
	ecdsaCA, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name      string
		authority ssh.Signer
		until     time.Duration
		names     string // of the certificate; "": there is none
		alias     string
		known     string // lines; CA is the authority's key, HOST the host's
		want      string // of an error
	}{
		{name: "for the address", names: "127.0.0.1", known: "@cert-authority * CA"},
		{name: "for the address and its port", names: "127.0.0.1", known: "@cert-authority [127.0.0.1]:PORT CA"},
		{name: "of an authority of another type", authority: ecdsaCA, names: "127.0.0.1", known: "@cert-authority * CA"},
		{name: "for a name that is not the address", names: "web1.example.net", alias: "web1.example.net", known: "@cert-authority *.example.net CA"},
		{name: "for a name that is not the address, without the alias", names: "web1.example.net", known: "@cert-authority * CA",
			want: "its host certificate is for web1.example.net, not for 127.0.0.1: set host_key_alias to the name that it has"},
		{name: "of an authority for others", names: "127.0.0.1", known: "@cert-authority *.example.net CA", want: "is not known"},
		{name: "of an authority that is not known", names: "127.0.0.1", authority: another, known: "@cert-authority * OTHER", want: `its host certificate "test" (by ssh-ed25519 SHA256:`},
		{name: "that has run out", names: "127.0.0.1", until: -time.Hour, known: "@cert-authority * CA", want: "expired"},
		{name: "that is missing", known: "@cert-authority * CA", want: "it shows the plain host key ssh-ed25519 SHA256:"},
		{name: "that is missing, of a host whose key is known", known: "@cert-authority * CA\n[127.0.0.1]:PORT HOST"},
		{name: "beside a key that is known", names: "127.0.0.1", known: "[127.0.0.1]:PORT HOST"},
		{name: "a plain key by an alias", alias: "web1", known: "web1 HOST"},
		{name: "another alias", alias: "web2", known: "web1 HOST\n[127.0.0.1]:PORT HOST", want: "is not known"},
	} {
		t.Run(row.name, func(t *testing.T) {
			authority := ca
			if row.authority != nil {
				authority = row.authority
			}
			key, file := sshtest.NewKey(t, t.TempDir(), "hostkey")
			config := []string{"HostKey " + file}
			if row.names != "" {
				until := row.until
				if until == 0 {
					until = time.Hour
				}
				certify(t, file+"-cert.pub", authority, key.PublicKey(), ssh.HostCert, time.Now().Add(until), strings.Split(row.names, ",")...)
				config = append(config, "HostCertificate "+file+"-cert.pub")
			}
			server := sshtest.Start(t, sshtest.Options{Config: config, OwnHostKeys: true})
			s := settings(server)
			s.HostKeyAlias = row.alias
			s.KnownHosts = filepath.Join(t.TempDir(), "known_hosts")
			line := func(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }
			write(t, s.KnownHosts, strings.NewReplacer("PORT", fmt.Sprint(server.Port), "HOST", line(key.PublicKey()), "CA", line(authority.PublicKey()),
				"OTHER", line(ca.PublicKey())).Replace(row.known)+"\n")
			if row.want != "" {
				wantUnreachable(t, s, row.want)
				return
			}
			dial(t, s)
		})
	}
}
