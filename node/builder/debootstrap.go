package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vsfleet/vsfleet/node/api"
)

// A bootstrap holds the parsed arguments of the method debootstrap.
type bootstrap struct {
	dist     string
	mirror   string   // empty: the distribution's own
	script   string   // of debootstrap
	include  []string // packages
	options  []string // passed on to the tool
	original string   // an argument that only debootstrap knows
	modern   string   // an argument that only mmdebstrap knows
}

func (b *bootstrap) fill(ctx context.Context, req Request) error {
	path, args, err := b.command(req.Dir)
	if err != nil {
		return err
	}
	if filepath.Base(path) == "debootstrap" {
		// debootstrap starts no daemons of its own, but packages do by
		// invoke-rc.d, which asks this file. mmdebstrap brings one itself.
		if err := forbidDaemons(req.Dir); err != nil {
			return err
		}
	}
	if err := tool(ctx, req, program{path: path, args: args}); err != nil {
		return b.explain(err)
	}
	req.Progress.Report("making it fit for guests", 0, 0)
	return adapt(ctx, req.Dir)
}

// explain adds a cure where the host has no keys for the distribution, which debootstrap
// and apt tell in words of their own.
func (b *bootstrap) explain(err error) error {
	if !strings.Contains(err.Error(), "Keyring-based check was requested") && !strings.Contains(err.Error(), "is not signed") {
		return err
	}
	keyring := "debian-archive-keyring"
	if b.isUbuntu() {
		keyring = "ubuntu-keyring; Debian has it from 13 on"
	}
	return fmt.Errorf("%w: this host has no keys to check the distribution with: install its keyring (apt-get install %s), or name it in args: --, --keyring=FILE", err, keyring)
}

func parseBootstrap(spec api.ImageSpec) (source, error) {
	values, options, err := options(spec.Args, "dms")
	if err != nil {
		return nil, err
	}
	b := &bootstrap{}
	for letter, to := range map[byte]*string{'d': &b.dist, 'm': &b.mirror, 's': &b.script} {
		if *to, err = once(values, letter); err != nil {
			return nil, err
		}
	}
	if b.dist == "" {
		return nil, errors.New("which distribution? want -d DIST, as -d bookworm")
	}
	// The values become arguments of a program that runs as root: none may
	// look like an option of it, or like a path or a list where a name belongs.
	if !isWord(b.dist, ".") {
		return nil, fmt.Errorf("distribution %q: want a name, as bookworm", b.dist)
	}
	if b.mirror != "" && (!strings.Contains(b.mirror, ":/") || strings.HasPrefix(b.mirror, "-") || strings.ContainsAny(b.mirror, " \t\n")) {
		return nil, fmt.Errorf("mirror %q: want a URL, as http://deb.debian.org/debian", b.mirror)
	}
	if strings.HasPrefix(b.script, "-") {
		return nil, fmt.Errorf("script %q: want a file's name", b.script)
	}
	b.include = append(b.include, spec.Packages...)
	if b.script != "" {
		b.original = "-s"
	}
	for _, o := range options {
		name, value, hasValue := strings.Cut(o, "=")
		switch {
		case name == "--include" && hasValue:
			b.include = append(b.include, strings.Split(value, ",")...)
			continue
		case name == "--variant" && hasValue, name == "--components" && hasValue, name == "--arch" && hasValue,
			name == "--keyring" && hasValue, o == "--merged-usr":
		case slices.Contains([]string{"--mode", "--format"}, name):
			return nil, fmt.Errorf("argument %s: how and where a tree is made is not for choice: it becomes an image", o)
		case slices.Contains([]string{"--foreign", "--second-stage", "--print-debs", "--download-only", "--make-tarball", "--simulate", "--dry-run", "--help", "--version", "--list-scripts"}, name):
			return nil, fmt.Errorf("argument %s: what it leaves is no tree that a guest can run in", o)
		case slices.Contains(mmdebstrapOnly, name):
			b.modern = name
		default:
			b.original = name
		}
		b.options = append(b.options, o)
	}
	if b.original != "" && b.modern != "" {
		return nil, fmt.Errorf("only debootstrap knows %s, and only mmdebstrap knows %s: one tool makes the image", b.original, b.modern)
	}
	for _, p := range b.include {
		if !isWord(p, "+.:") {
			return nil, fmt.Errorf("package %q: want a package's name", p)
		}
	}
	return b, nil
}

// mmdebstrapOnly are options of mmdebstrap that debootstrap does not have. Each has
// its value after a =.
var mmdebstrapOnly = []string{
	"--aptopt", "--dpkgopt", "--setup-hook", "--extract-hook", "--essential-hook", "--customize-hook", "--hook-dir", "--hook-directory",
	"--skip", "--architectures", "--verbose", "--quiet", "--silent", "--debug", "--logfile",
}

// isWord reports whether s is a name in Debian: letters, digits, dashes and some other
// characters, beginning with a letter or a digit.
func isWord(s, marks string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c >= 'A' && c <= 'Z':
		case i > 0 && (c == '-' || c == '_' || strings.IndexByte(marks, c) >= 0):
		default:
			return false
		}
	}
	return s != ""
}

// command chooses the host's tool: mmdebstrap, which takes half the time and includes
// security updates, or debootstrap for what only debootstrap can do.
func (b *bootstrap) command(dir string) (program string, args []string, err error) {
	if b.original == "" {
		if program, err = exec.LookPath("mmdebstrap"); err == nil {
			return program, b.mmdebstrap(dir), nil
		}
	}
	if b.modern != "" {
		return "", nil, missingf("only mmdebstrap knows %s, and it is not on this host; install it: apt-get install mmdebstrap", b.modern)
	}
	if program, err = exec.LookPath("debootstrap"); err == nil {
		return program, b.debootstrap(dir), nil
	}
	if b.original != "" {
		return "", nil, missingf("only debootstrap knows %s, and it is not on this host; install it: apt-get install debootstrap", b.original)
	}
	return "", nil, missingf("neither mmdebstrap nor debootstrap is on this host; install one: apt-get install mmdebstrap")
}

func (b *bootstrap) mmdebstrap(dir string) []string {
	args := []string{
		"--mode=root", "--format=directory", "--verbose",
		// debootstrap's default: an installation that boots.
		"--variant=important",
		// Foreign architectures need no help here, and a mirror is trusted by
		// the host's keyrings as apt has them: two checks that want gpg and
		// arch-test installed.
		"--skip=check/qemu,check/signed-by",
		// The whole tree is synced once when it is complete.
		"--dpkgopt=force-unsafe-io",
		`--aptopt=Acquire::Languages "none"`,
	}
	// Without it bookworm's essential packages draw in usrmerge and all of
	// perl, 50 MB that debootstrap leaves out. It does nothing where there is
	// no package usr-is-merged, but fails where it is another's name, as in Ubuntu from
	// 24.04 on (base-files).
	const hook = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
	if b.isUbuntu() {
		args = append(args, b.forUbuntu()...)
		if isFile(ubuntuKeyring) && !b.has("--keyring") {
			args = append(args, "--keyring="+ubuntuKeyring) // debootstrap takes it without
		}
	} else if isFile(hook) {
		args = append(args, "--hook-dir="+hook)
	}
	if len(b.include) > 0 {
		args = append(args, "--include="+strings.Join(b.include, ","))
	}
	args = append(args, b.options...)
	args = append(args, b.dist, dir)
	if b.mirror != "" {
		args = append(args, b.mirror)
	}
	return args
}

func (b *bootstrap) debootstrap(dir string) []string {
	// Without it, and given a mirror, debootstrap installs what nobody has signed
	// where the keyring is missing, and warns in its log.
	args := []string{"--force-check-gpg"}
	if slices.Contains(b.options, "--no-check-gpg") {
		args = nil // the caller chose explicitly
	}
	if len(b.include) > 0 {
		args = append(args, "--include="+strings.Join(b.include, ","))
	}
	mirror := b.mirror
	switch {
	case b.isUbuntu():
		args = append(args, b.forUbuntu()...)
		if mirror == "" {
			mirror = ubuntuMirrors[runtime.GOARCH]
		}
	case mirror == "":
		mirror = "http://deb.debian.org/debian"
	}
	args = append(args, b.options...)
	args = append(args, b.dist, dir, mirror)
	if b.script != "" {
		args = append(args, b.script)
	}
	return args
}

const ubuntuKeyring = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"

var ubuntuMirrors = map[string]string{"amd64": "http://archive.ubuntu.com/ubuntu", "arm64": "http://ports.ubuntu.com/ubuntu-ports"}

// isUbuntu reports whether the distribution is one of Ubuntu's: by its mirror, or by what
// mmdebstrap goes by, too.
func (b *bootstrap) isUbuntu() bool {
	list, _ := os.ReadFile("/usr/share/distro-info/ubuntu.csv")
	script, _ := os.Readlink("/usr/share/debootstrap/scripts/" + b.dist)
	return strings.Contains(b.mirror, "ubuntu") || strings.Contains(string(list), ","+b.dist+",") || script == "gutsy"
}

// forUbuntu returns the components where most servers' packages are.
func (b *bootstrap) forUbuntu() []string {
	if b.has("--components") {
		return nil
	}
	return []string{"--components=main,universe"}
}

// has reports whether an option was given.
func (b *bootstrap) has(name string) bool {
	return slices.ContainsFunc(b.options, func(o string) bool { return strings.HasPrefix(o, name+"=") })
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func forbidDaemons(dir string) error {
	root, err := openInstallation(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.makeDir("usr/sbin"); err != nil {
		return err
	}
	return root.write(policy, "#!/bin/sh\nexit 101\n", 0o755)
}

const policy = "usr/sbin/policy-rc.d"

// isMissing reports whether err means that a file does not exist, which is as good as
// removed.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
