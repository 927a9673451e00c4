package sshconfig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// snippet is a configuration as people write it, and the hosts that are asked for.
type snippet struct {
	name   string
	text   string
	hosts  []string // default: web1
	user   string
	port   int
	only   bool              // only OpenSSH's client can evaluate it
	files  map[string]string // beside it
	shared bool              // all hosts share one call of ssh
}

var snippets = []snippet{
	{name: "nothing", text: ""},
	{name: "only comments", text: "# Host *\n\n   # User x\n"},
	{name: "a host by name", text: "Host web1\n  User alice\n  Port 2222\n"},
	{name: "no indentation", text: "Host web1\nUser alice\nHost web2\nUser bob\n", hosts: []string{"web1", "web2", "web3"}},
	{name: "equals signs", text: "Host=web1\nUser=alice\nPort = 2200\n"},
	{name: "keywords in any case", text: "HOST web1\nuSER alice\nhostname 192.0.2.1\n"},
	{name: "quoted values", text: "Host \"web1\"\n  IdentityFile \"~/my keys/id\"\n"},
	{name: "a comment behind a value", text: "Host web1 # ours\n  User alice # she\n"},
	{name: "wildcards", text: "Host web*\n  User alice\nHost *.example.net\n  User bob\n", hosts: []string{"web1", "web", "a.example.net", "db"}, shared: true},
	{name: "question marks", text: "Host web?\n  User alice\n", hosts: []string{"web", "web1", "web10"}},
	{name: "several patterns", text: "Host web1 db? !db3 db*\n  User alice\n", hosts: []string{"web1", "db1", "db3", "db10"}},
	{name: "only a negated pattern matches nothing", text: "Host !web1\n  User alice\n", hosts: []string{"web1", "web2"}},
	{name: "all but one", text: "Host * !bastion\n  ProxyJump bastion\n", hosts: []string{"web1", "bastion"}},
	{name: "the first value counts", text: "Host web1\n  User alice\nHost *\n  User bob\n  Port 2200\n", hosts: []string{"web1", "web2"}},
	{name: "the first value counts, in one block", text: "User alice\nUser bob\n"},
	{name: "identity files add up", text: "Host web1\n  IdentityFile ~/.ssh/a\nHost *\n  IdentityFile ~/.ssh/b\n  IdentityFile ~/.ssh/a\n", hosts: []string{"web1", "web2"}},
	{name: "certificates add up", text: "CertificateFile ~/.ssh/a-cert.pub\nCertificateFile ~/.ssh/b-cert.pub\n"},
	{name: "identities only", text: "IdentitiesOnly yes\nIdentityFile ~/.ssh/fleet\n"},
	{name: "no identity", text: "IdentityFile none\n"},
	{name: "an agent", text: "IdentityAgent /run/agent.sock\n"},
	{name: "no agent", text: "IdentityAgent none\n"},
	{name: "a host name", text: "Host web1\n  HostName 192.0.2.1\n"},
	{name: "a host name with a token", text: "Host web*\n  HostName %h.example.net\n", hosts: []string{"web1", "web2", "db"}},
	{name: "a host name with a percent sign", text: "Host web1\n  HostName fe80::1%%eth0\n"},
	{name: "an alias for host keys", text: "HostKeyAlias Web.Example.NET\n"},
	{name: "a jump host", text: "ProxyJump bastion\n"},
	{name: "jump hosts", text: "ProxyJump ops@a:2200,b\n"},
	{name: "no jump host", text: "Host web1\n  ProxyJump none\nHost *\n  ProxyJump bastion\n", hosts: []string{"web1", "web2"}},
	{name: "a proxy command", text: "ProxyCommand nc -X connect -x proxy:3128 %h %p\n"},
	{name: "a proxy command with quotes", text: "ProxyCommand sh -c \"exec nc '%h' %p\" # not a comment\n"},
	{name: "no proxy command", text: "ProxyCommand none\n"},
	{name: "known hosts", text: "UserKnownHostsFile /etc/fleet/known /etc/fleet/more\n"},
	{name: "known hosts of the machine", text: "GlobalKnownHostsFile /etc/fleet/global\n"},
	{name: "known hosts by host", text: "UserKnownHostsFile /etc/fleet/known-%h\n", hosts: []string{"web1", "web2"}},
	{name: "hashed known hosts", text: "HashKnownHosts yes\n"},
	{name: "no checking", text: "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n"},
	{name: "strict checking", text: "StrictHostKeyChecking yes\n"},
	{name: "new keys", text: "StrictHostKeyChecking accept-new\n"},
	{name: "revoked keys", text: "RevokedHostKeys /etc/ssh/revoked\n"},
	{name: "keepalives", text: "ServerAliveInterval 20\nServerAliveCountMax 5\nConnectTimeout 7\nConnectionAttempts 2\nTCPKeepAlive no\n"},
	{name: "address family", text: "AddressFamily inet6\nBindAddress 127.0.0.1\n"},
	{name: "a control path", text: "ControlMaster auto\nControlPath /run/ssh-%r@%h:%p\nControlPersist 10m\n", hosts: []string{"web1", "web2"}},
	{name: "algorithms", text: "Ciphers aes256-ctr,aes128-ctr\nMACs hmac-sha2-256\nKexAlgorithms curve25519-sha256\nHostKeyAlgorithms ssh-ed25519\nPubkeyAcceptedAlgorithms ssh-ed25519\n"},
	{name: "no passwords", text: "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"},
	{name: "an older name of a keyword", text: "ChallengeResponseAuthentication no\n"},
	{name: "the user of the command line counts", text: "User alice\nMatch user bob\n  Port 2200\n", user: "bob"},
	{name: "the port of the command line counts", text: "Port 2200\n", port: 2300},
	{name: "match a host", text: "Match host web1,web2\n  User alice\n", hosts: []string{"web1", "web2", "web3"}},
	{name: "match the host name", text: "Host web1\n  HostName web1.example.net\nMatch host *.example.net\n  User alice\n", hosts: []string{"web1", "web2"}},
	{name: "match the name that was asked for", text: "Host web1\n  HostName web1.example.net\nMatch originalhost web1\n  User alice\n", hosts: []string{"web1", "web1.example.net"}},
	{name: "match but for one", text: "Match host *,!web2\n  User alice\n", hosts: []string{"web1", "web2"}},
	{name: "match negated", text: "Match !host web2\n  User alice\n", hosts: []string{"web1", "web2"}},
	{name: "match a user of the configuration", text: "Host web1\n  User alice\nMatch user alice\n  Port 2200\n", hosts: []string{"web1", "web2"}},
	{name: "match the local user", text: "Match localuser root,nobody\n  Port 2200\nMatch localuser nobody\n  User alice\n"},
	{name: "match all", text: "Host web1\n  User alice\nMatch all\n  Port 2200\n", hosts: []string{"web1", "web2"}},
	{name: "match final, as Fedora has it", text: "Match final all\n  Ciphers aes256-ctr\n  IdentityFile ~/.ssh/fedora\nHost web1\n  Ciphers aes128-ctr\n", hosts: []string{"web1", "web2"}},
	{name: "match two criteria", text: "Match host web* user alice\n  Port 2200\nHost web1\n  User alice\n", user: "alice", hosts: []string{"web1", "db1"}},
	{name: "match a command", text: "Match host web1 exec \"test -e /etc/passwd\"\n  User alice\nMatch exec \"test %h = web2\"\n  User bob\n", hosts: []string{"web1", "web2", "web3"}, only: true},
	{name: "canonical names", text: "CanonicalizeHostname yes\nCanonicalDomains invalid\nCanonicalizeFallbackLocal yes\nMatch canonical all\n  User alice\n", only: true},
	{name: "an include", text: "Include DIR/more\nHost *\n  User bob\n", files: map[string]string{"more": "Host web1\n  User alice\n"}, hosts: []string{"web1", "web2"}},
	{name: "an include of many", text: "Include DIR/conf.d/*.conf\n", files: map[string]string{"conf.d/1.conf": "Host web1\n  Port 2201\n", "conf.d/2.conf": "User alice\nPort 2202\n", "conf.d/3.txt": "User eve\n"}, hosts: []string{"web1", "web2"}},
	{name: "an include inside a block", text: "Host web1\n  Include DIR/more\n  Port 2200\n", files: map[string]string{"more": "User alice\nHost web2\n  User bob\n"}, hosts: []string{"web1", "web2"}},
	{name: "an include of nothing", text: "Include DIR/none*\nUser alice\n"},
	{name: "forwarding, which is not ours", text: "ForwardAgent yes\nLocalForward 8080 localhost:80\nSendEnv LANG LC_*\nRequestTTY no\nVisualHostKey yes\n"},
}

// TestSnippets compares the answers, with and without OpenSSH's client, with what ssh -G
// prints.
func TestSnippets(t *testing.T) {
	defaults := printed(t, "none", snippet{}, "localhost")
	for _, s := range snippets {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range s.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				writeFile(t, path, strings.ReplaceAll(text, "DIR", dir))
			}
			file := filepath.Join(dir, "config")
			writeFile(t, file, strings.ReplaceAll(s.text, "DIR", dir))
			hosts := s.hosts
			if hosts == nil {
				hosts = []string{"web1"}
			}
			asked, alone := &Resolver{}, &Resolver{Program: "none"}
			for _, host := range hosts {
				want := map[string][]string{}
				for keyword, v := range printed(t, file, s, host) {
					switch {
					case keyword == "hostname" && v[0] == host, keyword == "host":
					case keyword == "user" && (s.user != "" || v[0] == currentUser()), keyword == "port" && s.port != 0:
					case equal(v, defaults[keyword]):
					default:
						want[keyword] = v
					}
				}
				for name, r := range map[string]*Resolver{"with ssh": asked, "without ssh": alone} {
					if r == alone && s.only {
						continue
					}
					got, err := r.Lookup(t.Context(), Query{File: file, Host: host, User: s.user, Port: s.port})
					if err != nil {
						t.Fatal(err)
					}
					values := map[string][]string{}
					for _, k := range got.Keywords() {
						if k == "user" && got.Value(k) == currentUser() {
							continue
						}
						values[k] = got.Values(k)
					}
					w := want
					if r == alone {
						values, w = spelledAlike(values, defaults, host), spelledAlike(want, defaults, host)
					}
					if diff := cmp.Diff(w, values); diff != "" {
						t.Errorf("%s, %s: ssh -G -, ours +\n%s", host, name, diff)
					}
				}
			}
			if s.shared && len(asked.answers) >= len(hosts) {
				t.Errorf("%d answers for %d hosts", len(asked.answers), len(hosts))
			}
		})
	}
}

// spelledAlike leaves the keywords that a connection of ours uses, in one spelling.
func spelledAlike(values, defaults map[string][]string, host string) map[string][]string {
	list := map[string][]string{}
	for k, v := range values {
		if !slices.Contains([]string{
			"user", "hostname", "port", "identityfile", "certificatefile", "identitiesonly", "identityagent", "hostkeyalias", "proxyjump",
			"proxycommand", "userknownhostsfile", "globalknownhostsfile", "hashknownhosts", "stricthostkeychecking", "revokedhostkeys",
			"serveraliveinterval", "serveralivecountmax", "connecttimeout", "addressfamily", "bindaddress", "ciphers", "macs", "kexalgorithms",
			"hostkeyalgorithms", "passwordauthentication", "kbdinteractiveauthentication",
		}, k) {
			continue
		}
		var spelled []string
		for _, one := range v {
			one = strings.NewReplacer("%h", host, "%%", "%").Replace(one)
			one = map[string]string{"yes": "true", "no": "false", "off": "false"}[one] + map[bool]string{true: one}[one != "yes" && one != "no" && one != "off"]
			if k == "hostkeyalias" {
				one = strings.ToLower(one)
			}
			spelled = append(spelled, one)
		}
		if (k == "proxycommand" || k == "proxyjump") && spelled[0] == "none" {
			continue
		}
		list[k] = spelled
	}
	return list
}

// printed returns what OpenSSH's client prints for a host.
func printed(t *testing.T, file string, s snippet, host string) map[string][]string {
	t.Helper()
	args := []string{"-G", "-F", file}
	if s.user != "" {
		args = append(args, "-l", s.user)
	}
	if s.port != 0 {
		args = append(args, "-p", fmt.Sprint(s.port))
	}
	out, err := exec.Command("ssh", append(args, host)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return parseAnswer(string(out))
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesOfUserAndMachine(t *testing.T) {
	home, etc := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".ssh", "conf.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	user, system := filepath.Join(home, ".ssh", "config"), filepath.Join(etc, "ssh_config")
	for _, program := range []string{"", "none"} {
		look := func(host string) (Options, error) {
			r := &Resolver{Program: program, Home: home, System: system}
			return r.Lookup(t.Context(), Query{Host: host, DefaultUser: "admin"})
		}
		os.Remove(user)
		os.Remove(system)
		o, err := look("web1")
		if err != nil || len(o.Keywords()) != 0 {
			t.Errorf("no files: %v, %v", o, err)
		}
		writeFile(t, user, "Host web1\n  User alice") // without the end of the line
		writeFile(t, system, "User bob\nPort 2200\n")
		for host, want := range map[string]string{"web1": "alice 2200", "web2": "bob 2200"} {
			o, err := look(host)
			if got := o.Value("user") + " " + o.Value("port"); err != nil || got != want {
				t.Errorf("%s, program %q: %q, %v; want %q", host, program, got, err, want)
			}
		}
		writeFile(t, system, "Port 2200\n")
		if o, err := look("web2"); err != nil || o.Value("user") != "admin" {
			t.Errorf("program %q: user %q, %v; want the default", program, o.Value("user"), err)
		}
		if o, err := (&Resolver{Program: program, Home: home, System: system}).Lookup(t.Context(), Query{Host: "web1", File: "none"}); err != nil || len(o.Keywords()) != 0 {
			t.Errorf("none: %v, %v", o, err)
		}
		if err := os.Chmod(user, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := look("web1"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a file that others can write to: %v", err)
		}
		if err := os.Chmod(user, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	for _, row := range []struct{ name, text, program, want string }{
		{"a keyword that nobody knows", "User root\nHots web1\n", "", file + ": line 2: Bad configuration option: hots"},
		{"a quote without its end", "Host web1\n  User \"alice\n", "none", file + ":2: no closing \""},
		{"a file that includes itself", "Include " + file + "\n", "", "recursive"},
		{"the same, without OpenSSH", "Include " + file + "\n", "none", "deep"},
	} {
		t.Run(row.name, func(t *testing.T) {
			writeFile(t, file, row.text)
			_, err := (&Resolver{Program: row.program}).Lookup(t.Context(), Query{File: file, Host: "web1"})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
	t.Run("a file that is not there", func(t *testing.T) {
		if _, err := new(Resolver).Lookup(t.Context(), Query{File: "/no/such/config", Host: "web1"}); err == nil || !strings.Contains(err.Error(), "/no/such/config") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("what only OpenSSH can tell is named", func(t *testing.T) {
		writeFile(t, file, "Match exec true\n  User alice\n")
		o, err := (&Resolver{Program: "none"}).Lookup(t.Context(), Query{File: file, Host: "web1"})
		if err != nil || len(o.Skipped) != 1 || !strings.Contains(o.Skipped[0], ":1: Match exec") {
			t.Errorf("%q, %v", o.Skipped, err)
		}
	})
}

func TestThousandHostsShareTheirCalls(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	writeFile(t, file, "Host web*\n  User alice\n  IdentityFile ~/.ssh/%h\nHost *\n  HashKnownHosts yes\n  SendEnv LANG\n")
	r := &Resolver{}
	for i := range 1000 {
		name := "db"
		if i%2 == 0 {
			name = "web"
		}
		if _, err := r.Lookup(context.Background(), Query{File: file, Host: fmt.Sprint(name, i)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.answers) != 2 {
		t.Errorf("%d calls of ssh, want 2", len(r.answers))
	}
}

// FuzzEvaluate reads any configuration, without ssh.
func FuzzEvaluate(f *testing.F) {
	for _, s := range snippets {
		f.Add(s.text, "web1")
	}
	f.Add("Host \\", "\x00")
	f.Fuzz(func(t *testing.T, text, host string) {
		if strings.Contains(strings.ToLower(text), "include") {
			return // of files of this machine
		}
		lines, err := paths{home: "/nonexistent"}.parse(text, "config", "/nonexistent", 0)
		if err != nil {
			return
		}
		dependent(lines)
		if got := evaluate(Query{Host: host, DefaultUser: "root"}, lines); got.Value("user") == "" && !strings.Contains(strings.ToLower(text), "user") {
			t.Error("no user")
		}
		other := host + "-other"
		if signature(host, lines) == signature(other, lines) && !dependent(lines) {
			a, b := evaluate(Query{Host: host}, lines), evaluate(Query{Host: other}, lines)
			if diff := cmp.Diff(a.values, b.values); diff != "" {
				t.Errorf("%q and %q share their answer, which differs:\n%s", host, other, diff)
			}
		}
	})
}

// FuzzMatchPattern compares patterns with a plain definition of them.
func FuzzMatchPattern(f *testing.F) {
	f.Add("web1.example.net", "web*.ex?mple.*")
	f.Add("", "*")
	f.Fuzz(func(t *testing.T, s, pattern string) {
		if len(s) > 12 || len(pattern) > 8 {
			return
		}
		if got, want := matchPattern(s, pattern), plainMatch(s, pattern); got != want {
			t.Errorf("%q %q: %t, want %t", s, pattern, got, want)
		}
	})
}

func plainMatch(s, pattern string) bool {
	switch {
	case pattern == "":
		return s == ""
	case pattern[0] == '*':
		return plainMatch(s, pattern[1:]) || s != "" && plainMatch(s[1:], pattern)
	case s == "":
		return false
	}
	return (pattern[0] == '?' || pattern[0] == s[0]) && plainMatch(s[1:], pattern[1:])
}
