package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
)

// A dnf installs RPM packages into an empty root by the host's dnf: what yum, patched,
// did for util-vserver.
type dnf struct {
	release  string
	files    []string    // .repo files of the host
	repos    [][2]string // id and URL
	keys     []string    // of repos
	packages []string
	options  []string
}

func parseDNF(spec api.ImageSpec) (source, error) {
	values, rest, err := options(spec.Args, "drk")
	if err != nil {
		return nil, err
	}
	var d dnf
	if d.release, err = once(values, 'd'); err != nil {
		return nil, err
	}
	if !isWord(d.release, ".") {
		return nil, fmt.Errorf("release %q: want -d RELEASE, as -d 9: what the distribution's repositories call it ($releasever)", d.release)
	}
	if err := d.parseRepositories(values['r'], values['k']); err != nil {
		return nil, err
	}
	d.packages = slices.Clone(spec.Packages)
	for _, arg := range rest {
		name, _, _ := strings.Cut(arg, "=")
		switch {
		case slices.Contains([]string{"--installroot", "--downloadonly", "--downloaddir", "--destdir", "--assumeno", "--forcearch", "--version", "--help", "-h"}, name),
			strings.HasPrefix(arg, "--setopt=installroot"), strings.HasPrefix(arg, "--setopt=reposdir"):
			return nil, fmt.Errorf("argument %s: where and how a tree is made is not for choice: it becomes an image", arg)
		case strings.HasPrefix(arg, "-"):
			d.options = append(d.options, arg)
		default:
			d.packages = append(d.packages, arg)
		}
	}
	for _, p := range d.packages {
		// They are arguments of a program that runs as root.
		if p == "" || p[0] == '-' || strings.ContainsAny(p, " \t\n,") {
			return nil, fmt.Errorf("package %q: want a package's name, a file that it has, or a group, as @core", p)
		}
	}
	if len(d.packages) == 0 {
		d.packages = []string{"@core"} // what an installation without choices has
	}
	if len(d.repos) > 0 && len(d.keys) == 0 && !d.unchecked() {
		return nil, fmt.Errorf("repository %s has no key to check its packages with: name it by -k FILE|URL, or take unsigned packages with -- --nogpgcheck", d.repos[0][0])
	}
	return d, nil
}

func (d *dnf) parseRepositories(repos, keys []string) error {
	for _, r := range repos {
		id, url, ok := strings.Cut(r, "=")
		switch {
		case filepath.IsAbs(r) && strings.HasSuffix(r, ".repo"):
			d.files = append(d.files, r)
		case ok && isWord(id, ".") && isURL(url):
			d.repos = append(d.repos, [2]string{id, url})
		default:
			return fmt.Errorf("repository %q: want the path of a .repo file on the host, or NAME=URL", r)
		}
	}
	for _, k := range keys {
		if filepath.IsAbs(k) && !strings.ContainsAny(k, " \t\n") {
			k = "file://" + k
		}
		if !isURL(k) {
			return fmt.Errorf("key %q: want the path of a file on the host, or a URL", k)
		}
		d.keys = append(d.keys, k)
	}
	if len(keys) > 0 && len(d.repos) == 0 {
		return errors.New("argument -k: a key is of a repository that is given as -r NAME=URL; a .repo file names its own")
	}
	return nil
}

func isURL(s string) bool {
	return strings.Contains(s, ":/") && !strings.HasPrefix(s, "-") && !strings.ContainsAny(s, " \t\r\n")
}

// unchecked reports whether unsigned packages are installed, which the caller has to want.
func (d dnf) unchecked() bool { return slices.Contains(d.options, "--nogpgcheck") }

// own is a directory of the tree for what dnf needs, until it has ended.
const own = ".dnf"

// mounts mounts in the root, which is the first argument, what scripts of packages expect,
// and runs the others.
const mounts = `root=$1; shift
mkdir -m 755 "$root/dev" "$root/proc" "$root/sys"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755,nosuid,noexec dev "$root/dev"
for d in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do mknod -m 666 "$root/dev/${d% *}" c 1 "${d#* }"; done
ln -s /proc/self/fd "$root/dev/fd"
exec "$@"`

func (d dnf) fill(ctx context.Context, req Request) error {
	path, err := exec.LookPath("dnf")
	if err != nil {
		return missingf("dnf is not on this host; install it: apt-get install dnf")
	}
	args := []string{"-ec", mounts, "sh", req.Dir, path,
		"--assumeyes", "--installroot=" + req.Dir, "--releasever=" + d.release,
		// With what a repository or the host says otherwise, a package that nobody
		// has signed would be installed.
		"--setopt=gpgcheck=1", "--setopt=*.gpgcheck=1", "--setopt=localpkg_gpgcheck=1",
		"--setopt=skip_if_unavailable=0", "--setopt=*.skip_if_unavailable=0", "--setopt=keepcache=0",
	}
	if d.unchecked() {
		args = slices.DeleteFunc(args, func(a string) bool { return strings.HasSuffix(a, "gpgcheck=1") })
	}
	if len(d.files)+len(d.repos) > 0 {
		dir := filepath.Join(req.Dir, own)
		if err := d.writeRepositories(dir); err != nil {
			return err
		}
		args = append(args, "--setopt=reposdir="+dir)
	}
	if to, err := filepath.EvalSymlinks(path); err == nil && filepath.Base(to) == "dnf5" {
		args = append(args, "--use-host-config") // dnf 4 does by itself
	}
	args = append(append(append(args, d.options...), "install"), d.packages...)
	req.Progress.Report("reading the lists of packages", 0, 0)
	err = tool(ctx, req, program{path: "/bin/sh", args: args, what: "dnf"})
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "GPG"), strings.Contains(err.Error(), "not signed"), strings.Contains(err.Error(), "Problem repository"):
		return fmt.Errorf("%w: name the key (-k, or gpgkey= in the .repo file), or take unsigned packages with -- --nogpgcheck", err)
	case strings.Contains(err.Error(), "no enabled repositories"):
		return fmt.Errorf("%w: name one: -r FILE.repo, or -r NAME=URL -k KEY", err)
	default:
		return err
	}
	req.Progress.Report("making it fit for guests", 0, 0)
	return d.adapt(req.Dir)
}

// writeRepositories writes the descriptions of repositories into a new directory.
func (d dnf) writeRepositories(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i, name := range d.files {
		f, err := openSource(name)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(f, 1<<20))
		f.Close()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(name))), b, 0o600); err != nil {
			return err
		}
	}
	var b strings.Builder
	for _, r := range d.repos {
		fmt.Fprintf(&b, "[%s]\nname=%s\nbaseurl=%s\ngpgkey=%s\n\n", r[0], r[0], r[1], strings.Join(d.keys, " "))
	}
	return os.WriteFile(filepath.Join(dir, "given.repo"), []byte(b.String()), 0o600)
}

// rpmDatabases are the places of rpm's database: Fedora's and newer Red Hat's, everybody
// else's, and Debian's for trees of others.
var rpmDatabases = []string{"usr/lib/sysimage/rpm", "var/lib/rpm", "root/.rpmdb", ".rpmdb"}

// adapt makes a new installation fit to be cloned.
func (d dnf) adapt(dir string) error {
	root, err := openInstallation(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := moveDatabase(root); err != nil {
		return err
	}
	for _, name := range []string{own, "var/cache/dnf", "var/cache/yum", "var/cache/libdnf5", "var/log/hawkey.log", "var/lib/dnf/history.sqlite-wal"} {
		if err := root.remove(name); err != nil {
			return err
		}
	}
	for dir, pattern := range map[string]string{"var/log": "dnf*.log", "etc/ssh": "ssh_host_*"} {
		if err := empty(root, dir, pattern); err != nil {
			return err
		}
	}
	return blank(root)
}

// moveDatabase moves rpm's database from where the host's rpm keeps one to where the
// guest's looks for it.
func moveDatabase(root *installation) error {
	want := "var/lib/rpm"
	if b, err := root.ReadFile("usr/lib/rpm/macros"); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "%_dbpath" {
				want = strings.NewReplacer("%{_var}", "var", "%{_usr}", "usr", "%{_localstatedir}", "var").Replace(f[1])
			}
		}
	}
	want = strings.Trim(want, "/")
	if want == "" || strings.ContainsAny(want, "%{") || strings.Contains(want, "..") {
		return fmt.Errorf("the guest's rpm has its database in %q, which vsnode cannot read", want)
	}
	for _, from := range rpmDatabases {
		there := false
		for _, file := range []string{"rpmdb.sqlite", "Packages.db", "Packages"} {
			_, err := root.Stat(from + "/" + file)
			there = there || err == nil
		}
		if !there {
			continue
		}
		if from == want {
			return nil
		}
		if err := root.remove(want); err != nil {
			return err
		}
		if err := root.makeDir(filepath.Dir(want)); err != nil {
			return err
		}
		return root.Rename(from, want)
	}
	return errors.New("dnf succeeded but installed nothing: the root has no package database")
}
