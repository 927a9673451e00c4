package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// layer is a host's own layer over the machine's root filesystem, while it is
// not mounted. Directories in it must look like those below them, because
// overlayfs shows the owner and mode of the topmost one. It was
// written by the host's root, so it is reached through an os.Root only.
type layer struct{ root *os.Root }

// openLayer makes the directories that a host mounts: see enterRoot.
func openLayer(hostDir string) (*layer, error) {
	dirs := append([]hostPath{{"root", 0o755}, {"work", 0o755}, {"upper", 0o755}}, realDirs...)
	for i, dir := range dirs {
		p := filepath.Join(hostDir, dir.path)
		if i >= len(dirs)-len(realDirs) {
			p = realDir(hostDir, dir.path)
		}
		if err := os.MkdirAll(p, dir.mode); err != nil {
			return nil, err
		}
		if err := os.Chmod(p, dir.mode); err != nil { // whatever our umask is
			return nil, err
		}
	}
	root, err := os.OpenRoot(filepath.Join(hostDir, "upper"))
	if err != nil {
		return nil, err
	}
	return &layer{root}, nil
}

// makeDir makes a directory and those above it, as they are on the machine.
func (l *layer) makeDir(name string) error {
	if _, err := l.root.Lstat(name); err == nil {
		return nil
	}
	if err := l.makeDir(path.Dir(name)); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Lstat("/"+name, &st)
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "lstat", Path: "/" + name, Err: err}
	}
	if err != nil {
		st.Mode = unix.S_IFDIR | 0o755
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("/%s is not a directory on this machine: the lab cannot put anything below it", name)
	}
	if err := l.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	if err := l.root.Chown(name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	mode := fs.FileMode(st.Mode & 0o777)
	if st.Mode&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return l.root.Chmod(name, mode)
}

// hideBelow makes a directory that shows nothing of the machine's.
func (l *layer) hideBelow(name string) error {
	if err := l.makeDir(name); err != nil {
		return err
	}
	f, err := l.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fsetxattr(int(f.Fd()), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return &os.PathError{Op: "hide", Path: "/" + name, Err: err}
	}
	return nil
}

// hide makes a whiteout (device 0:0): in the host, name does not exist.
func (l *layer) hide(name string) error {
	parent := path.Dir(name)
	if err := l.makeDir(parent); err != nil {
		return err
	}
	f, err := l.root.Open(parent)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Mknodat(int(f.Fd()), path.Base(name), unix.S_IFCHR, 0)
	if err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "hide", Path: "/" + name, Err: err}
	}
	return nil
}

// writeFile writes a file and replaces whatever the host has put in its place.
func (l *layer) writeFile(name string, data []byte, mode fs.FileMode) error {
	if err := l.makeDir(path.Dir(name)); err != nil {
		return err
	}
	if err := l.root.RemoveAll(name + newSuffix); err != nil {
		return err
	}
	if err := l.root.WriteFile(name+newSuffix, data, mode); err != nil {
		return err
	}
	if err := l.root.Chmod(name+newSuffix, mode); err != nil {
		return err
	}
	return l.root.Rename(name+newSuffix, name)
}

// identity holds what differs from host to host.
type identity struct {
	name       string
	address    netip.Addr
	hostKey    []byte
	hostPub    []byte
	authorized []byte // public keys that may log in as root
	resolver   []byte // resolv.conf
	labDir     string // of this machine
}

// write writes the host's identity into the layer.
func (l *layer) write(id identity) error {
	controller := path.Dir(DefaultDir)
	hidden := []string{controller}
	if !strings.HasPrefix(id.labDir, controller+"/") {
		hidden = append(hidden, id.labDir)
	}
	for _, name := range hidden {
		if err := l.hide(strings.TrimPrefix(name, "/")); err != nil {
			return err
		}
	}
	// People's keys, tokens and shell settings and the machine's host keys
	// stay on the machine: a new host has none of them.
	for _, dir := range []string{"etc/ssh", "root", "home"} {
		if err := l.hideBelow(dir); err != nil {
			return err
		}
	}
	if err := l.root.Mkdir("root/.ssh", 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, dir := range realDirs {
		if err := l.makeDir(dir.path); err != nil {
			return err
		}
	}
	machineID := sha256.Sum256(id.hostPub)
	config := fmt.Sprintf(sshdConfig, id.address)
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{"etc/hostname", []byte(id.name + "\n"), 0o644},
		{"etc/hosts", []byte(fmt.Sprintf(hostsFile, id.address, id.name)), 0o644},
		{"etc/resolv.conf", id.resolver, 0o644},
		{"etc/machine-id", []byte(hex.EncodeToString(machineID[:16]) + "\n"), 0o444},
		{"etc/ssh/sshd_config", []byte(config), 0o644},
		{"etc/ssh/ssh_host_ed25519_key", id.hostKey, 0o600},
		{"etc/ssh/ssh_host_ed25519_key.pub", id.hostPub, 0o644},
		{"root/.ssh/authorized_keys", id.authorized, 0o600},
	} {
		if err := l.writeFile(f.name, f.data, f.mode); err != nil {
			return err
		}
	}
	return l.removePassword()
}

const hostsFile = `127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
%s %s
`

// The host listens on its address and not on the wildcard, as a well-kept host
// of guests does: else it would take port 22 from all of them. Without PAM,
// what the machine's PAM configuration asks for cannot keep us out.
const sshdConfig = `# Written by vsfleet lab up.
ListenAddress %s
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile ` + sshdPidFile + `
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
`

// removePassword gives the host's root no password: the machine's must not be
// valid there, and sshd without PAM refuses an account locked with "!", keys
// or not. "*" is no password and no lock (shadow(5)).
func (l *layer) removePassword() error {
	const name = "etc/shadow"
	if _, err := l.root.Lstat(name); err == nil {
		return nil // written at an earlier start, the host's own since
	}
	shadow, err := os.ReadFile("/" + name)
	if err != nil {
		return err
	}
	lines := bytes.SplitAfter(shadow, []byte("\n"))
	for i, line := range lines {
		if fields := bytes.Split(line, []byte(":")); len(fields) > 2 && string(fields[0]) == "root" {
			fields[1] = []byte("*")
			lines[i] = bytes.Join(fields, []byte(":"))
		}
	}
	return l.writeFile(name, bytes.Join(lines, nil), 0o600)
}

// resolvConf returns the machine's resolver configuration without the name
// servers that a host cannot reach: those on the machine's loopback, and
// those of IPv6, which the lab's network does not carry.
// systemd-resolved, one of these, keeps the real ones in a second file.
func resolvConf() ([]byte, error) {
	data, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conf, usable := reachable(string(data))
	if usable {
		return []byte(conf), nil
	}
	data, err = os.ReadFile("/run/systemd/resolve/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return []byte(conf), nil // no DNS for the machine's neighbours: the lab works without
	}
	if err != nil {
		return nil, err
	}
	conf, _ = reachable(string(data))
	return []byte(conf), nil
}

func reachable(conf string) (string, bool) {
	var out strings.Builder
	usable := false
	for line := range strings.Lines(conf) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err != nil || a.IsLoopback() || a.Is6() {
				continue
			}
			usable = true
		}
		out.WriteString(line)
	}
	return out.String(), usable
}
