package builder_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/builder"
)

func init() {
	fixtures["dnf"] = fixture{spec: dnfOf("dnf"), drifts: true}
	fixtures["yum"] = fixture{spec: dnfOf("yum"), drifts: true}
}

// dnfOf has a dnf that installs the system at source.
func dnfOf(method string) func(t *testing.T, source string) api.ImageSpec {
	return func(t *testing.T, source string) api.ImageSpec {
		tool(t, "dnf", `for arg; do case $arg in --installroot=*) root=${arg#*=};; esac; done
cp -a `+source+`/. $root && mkdir -p $root/root/.rpmdb && touch $root/root/.rpmdb/rpmdb.sqlite
echo "  Installing       : all    1/1"`)
		return api.ImageSpec{Method: method, Args: []string{"-d", "9"}}
	}
}

const specFile = `Name: %s
Version: 1.0
Release: 1
Summary: a package of a test
License: MIT
AutoReqProv: no
%s
%%description
A package of a test.
%%install
mkdir -p %%{buildroot}/bin %%{buildroot}/etc %%{buildroot}/usr/lib/rpm
%s
%%files
%s
`

// repository makes a repository of RPM packages: base, which is signed by a key, and
// unsigned. It returns its URL and the key's file.
func repository(t *testing.T) (url, key string) {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	do := func(argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "GNUPGHOME="+at("gnupg"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", argv[0], err, out)
		}
	}
	for _, sub := range []string{"gnupg", "repo"} {
		must(t, os.Mkdir(at(sub), 0o700))
	}
	for name, parts := range map[string][3]string{
		"base": {"", `cp /bin/busybox %{buildroot}/bin/sh
echo root:x:0:0::/:/bin/sh >%{buildroot}/etc/passwd; echo root:x:0: >%{buildroot}/etc/group
echo '%%_dbpath	%%{_usr}/lib/sysimage/rpm' >%{buildroot}/usr/lib/rpm/macros`,
			"/bin/sh\n/etc/passwd\n/etc/group\n/usr/lib/rpm/macros\n%post\necho ran >/etc/of-the-script; test -c /dev/null && test -r /proc/self/status && echo mounted >>/etc/of-the-script"},
		"unsigned": {"Requires: base", "echo x >%{buildroot}/etc/unsigned", "/etc/unsigned"},
	} {
		must(t, os.WriteFile(at(name+".spec"), []byte(fmt.Sprintf(specFile, name, parts[0], parts[1], parts[2])), 0o644))
		do("rpmbuild", "-bb", "--quiet", "--define", "_topdir "+at("build"), "--define", "_rpmdir "+at("repo"), "--define", "_build_id_links none", "--define", "__os_install_post %{nil}", at(name+".spec"))
	}
	do("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "test@example.net", "rsa2048", "sign", "never")
	do("gpg", "--batch", "--quiet", "--armor", "--output", at("key"), "--export", "test@example.net")
	signed, err := filepath.Glob(at("repo/*/base-*.rpm"))
	must(t, err)
	do("rpmsign", "--define", "_gpg_name test@example.net", "--define", "__gpg /usr/bin/gpg", "--addsign", signed[0])
	do("gpgconf", "--kill", "gpg-agent")
	do("createrepo_c", "--quiet", at("repo"))
	return "file://" + at("repo"), at("key")
}

// TestDNF installs packages by this host's dnf.
func TestDNF(t *testing.T) {
	url, key := repository(t)
	file := filepath.Join(t.TempDir(), "own.repo")
	must(t, os.WriteFile(file, []byte("[own]\nname=own\nbaseurl="+url+"\ngpgcheck=0\n"), 0o644))
	keyed := filepath.Join(t.TempDir(), "keyed.repo")
	must(t, os.WriteFile(keyed, []byte("[own]\nname=own\nbaseurl="+url+"\ngpgkey=file://"+key+"\n"), 0o644))
	for _, row := range []struct {
		name     string
		args     []string
		packages []string
		files    string // names in /etc
		fails    string
	}{
		{"a signed package of a repository with its key", []string{"-r", "own=" + url, "-k", key, "--", "base"}, nil, "base", ""},
		{"a signed package of a .repo file", []string{"-r", keyed}, []string{"base"}, "base", ""},
		{"an unsigned package", []string{"-r", "own=" + url, "-k", key, "--", "unsigned"}, nil, "", "take unsigned packages with -- --nogpgcheck"},
		{"a .repo file that would not check", []string{"-r", file, "--", "unsigned"}, nil, "", "take unsigned packages with -- --nogpgcheck"},
		{"an unsigned package that is wanted so", []string{"-r", file, "--", "--nogpgcheck", "unsigned"}, nil, "base unsigned", ""},
		{"a package that is not there", []string{"-r", keyed, "--", "nosuch"}, nil, "", "No match for argument: nosuch"},
		{"no repository", []string{"--", "base"}, nil, "", "name one: -r FILE.repo"},
		{"a repository that is not there", []string{"-r", "own=file:///nowhere", "-k", key, "--", "base"}, nil, "", "/nowhere"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			spec := api.ImageSpec{Method: "dnf", Args: append([]string{"-d", "9"}, row.args...), Packages: row.packages}
			lines := 0
			err := builder.Run(t.Context(), builder.Request{Spec: spec, Dir: dir, Progress: func(e api.Event) {
				if e.Total > 0 {
					lines++
				}
			}})
			if row.fails != "" {
				if err == nil || !strings.Contains(err.Error(), row.fails) {
					t.Errorf("error is %v, want %q", err, row.fails)
				}
				return
			}
			must(t, err)
			if lines == 0 {
				t.Error("no progress in packages")
			}
			for _, name := range []string{"base", "unsigned"} {
				file := map[string]string{"base": "etc/passwd", "unsigned": "etc/unsigned"}[name]
				if _, err := os.Stat(filepath.Join(dir, file)); (err == nil) != strings.Contains(row.files, name) {
					t.Errorf("%s: %v", file, err)
				}
			}
			for name, want := range map[string]bool{
				"usr/lib/sysimage/rpm/rpmdb.sqlite": true, "root/.rpmdb": false, ".dnf": false, "var/cache/dnf": false, "dev/null": false, "proc/self": false, "etc/of-the-script": true,
			} {
				if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
					t.Errorf("%s: %v", name, err)
				}
			}
			if b, err := os.ReadFile(filepath.Join(dir, "etc/of-the-script")); err != nil || string(b) != "ran\nmounted\n" {
				t.Errorf("the script of the package said %q, %v", b, err)
			}
			out, err := exec.Command("rpm", "--dbpath", filepath.Join(dir, "usr/lib/sysimage/rpm"), "-q", "base").CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "base-1.0-1") {
				t.Errorf("rpm -q: %s, %v", out, err)
			}
		})
	}
}

func TestDNFRefuses(t *testing.T) {
	for _, row := range []struct {
		name  string
		args  []string
		fails string
	}{
		{"no release", nil, "want -d RELEASE"},
		{"a release that is an option", []string{"-d", "--installroot=/"}, "want -d RELEASE"},
		{"a repository that is neither", []string{"-d", "9", "-r", "rocky"}, "want the path of a .repo file on the host, or NAME=URL"},
		{"a repository with a line break", []string{"-d", "9", "-r", "x=http://x/\ngpgcheck=0"}, "want the path of a .repo file"},
		{"a repository without a key", []string{"-d", "9", "-r", "x=http://x/"}, "repository x has no key"},
		{"a key of no repository", []string{"-d", "9", "-k", "/key"}, "a key is of a repository that is given as -r NAME=URL"},
		{"a key that is an option", []string{"-d", "9", "-r", "x=http://x/", "-k", "-x"}, `key "-x"`},
		{"another root", []string{"-d", "9", "--", "--installroot=/"}, "where and how a tree is made is not for choice"},
		{"another root by another way", []string{"-d", "9", "--", "--setopt=installroot=/"}, "not for choice"},
		{"a list of packages in one", []string{"-d", "9", "--", "a,b"}, `package "a,b"`},
		{"a file that is not there", []string{"-d", "9", "-r", "/nowhere/x.repo"}, "no /nowhere/x.repo on this host"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := builder.Run(t.Context(), builder.Request{Spec: api.ImageSpec{Method: "dnf", Args: row.args}, Dir: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), row.fails) {
				t.Errorf("error is %v, want %q", err, row.fails)
			}
		})
	}
	t.Run("a host without dnf", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		err := builder.Run(t.Context(), builder.Request{Spec: api.ImageSpec{Method: "yum", Args: []string{"-d", "9"}}, Dir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), "dnf is not on this host; install it: apt-get install dnf") {
			t.Errorf("error is %v", err)
		}
	})
}
