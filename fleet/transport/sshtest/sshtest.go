// Package sshtest runs real OpenSSH servers for tests: each on a port of
// 127.0.0.1, with keys and configuration of its own, in mount and pid
// namespaces that end with the test, and every session with them. It needs
// root, and sshd at /usr/sbin/sshd.
package sshtest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Options are the options of a server.
type Options struct {
	Config []string // lines of sshd_config
	// Login is a script in place of the login shell; the command of the client
	// is in $SSH_ORIGINAL_COMMAND.
	Login string
	// Setup is a script that runs before sshd, with an /etc of its own: it may add users
	// and change what sudo allows.
	Setup string
	// OwnHostKeys leaves the host keys to Config.
	OwnHostKeys bool
}

// Server is an sshd that runs until the test ends.
type Server struct {
	Dir        string
	Port       int
	HostKey    ssh.Signer
	KnownHosts string // a known_hosts file with this server's key
	Identity   string // a key file with which root can log in

	t      testing.TB
	setup  string
	daemon *exec.Cmd
}

// Start starts a server, which ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{Dir: t.TempDir(), t: t, setup: o.Setup}
	s.KnownHosts = filepath.Join(s.Dir, "known_hosts")
	var user ssh.Signer
	user, s.Identity = NewKey(t, s.Dir, "user")
	host, hostFile := NewKey(t, s.Dir, "host")
	s.HostKey = host
	s.write("authorized_keys", string(ssh.MarshalAuthorizedKey(user.PublicKey())))
	config := []string{
		"AuthorizedKeysFile " + filepath.Join(s.Dir, "authorized_keys") + " /run/authorized_keys", // which all users can read
		"PidFile none", "UsePAM no", "StrictModes no", "PermitRootLogin yes", "PasswordAuthentication no",
		"KbdInteractiveAuthentication no", "LogLevel VERBOSE",
	}
	if !o.OwnHostKeys {
		config = append(config, "HostKey "+hostFile)
	}
	if o.Login != "" {
		s.write("login", o.Login)
		config = append(config, "ForceCommand /bin/sh "+filepath.Join(s.Dir, "login"))
	}
	config = append(o.Config, config...) // sshd uses the first line of each keyword
	s.write("sshd_config", strings.Join(config, "\n")+"\n")

	// A port that is free now may be taken in a moment.
	for range 5 {
		if s.run() {
			break
		}
		s.daemon = nil
	}
	if s.daemon == nil {
		t.Fatalf("sshd does not start:\n%s", s.Log())
	}
	s.write("known_hosts", s.KnownHostsLine(s.HostKey.PublicKey()))
	return s
}

// KnownHostsLine returns a line of known_hosts that gives this server a key.
func (s *Server) KnownHostsLine(key ssh.PublicKey) string {
	return fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, ssh.MarshalAuthorizedKey(key))
}

// Log returns what sshd has logged so far.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.Dir, "log"))
	if err != nil {
		s.t.Error(err)
	}
	return string(b)
}

// Kill ends sshd and all its sessions at once, as a power failure does.
func (s *Server) Kill() {
	// It is process 1 of its namespace, so the kernel kills all others with it.
	if err := s.daemon.Process.Kill(); err != nil && err != os.ErrProcessDone {
		s.t.Error(err)
	}
	_ = s.daemon.Wait() // always "signal: killed"
}

func (s *Server) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run starts sshd on a free port, and reports whether it came up.
func (s *Server) run() bool {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.Port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	log, err := os.Create(filepath.Join(s.Dir, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	// sshd needs /run/sshd, which a test must not make on the host, and root's
	// .bashrc must not take part, so both directories are covered.
	script := `mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /root && mount -t proc proc /proc && mkdir /run/sshd &&
		if [ -n "$2" ]; then
			mkdir /run/etc /run/etc/upper /run/etc/work &&
			mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc && install -m 644 "${0%/*}/authorized_keys" /run/ && eval "set -e; $2"
		fi &&
		exec /usr/sbin/sshd -D -e -f "$0" -o "ListenAddress=127.0.0.1:$1"`
	s.daemon = exec.Command("/bin/sh", "-c", script, filepath.Join(s.Dir, "sshd_config"), fmt.Sprint(s.Port), s.setup)
	s.daemon.Stderr = log
	s.daemon.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS, // makes mounts private, too
		Pdeathsig:    syscall.SIGKILL,
	}
	if err := s.daemon.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.Kill)
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if strings.Contains(s.Log(), "Server listening") {
			return true
		}
		if strings.Contains(s.Log(), "Cannot bind") {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

// NewKey makes a key and writes it to a file, its public half to file.pub.
func NewKey(t testing.TB, dir, name string) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, name)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	for name, b := range map[string][]byte{
		file:          pem.EncodeToMemory(block),
		file + ".pub": bytes.TrimSpace(ssh.MarshalAuthorizedKey(key.PublicKey())),
	} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, file
}
