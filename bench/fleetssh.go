package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// fleet is many addresses of one sshd, and what a client needs to know.
type fleet struct {
	dir   string
	hosts []string
	port  string
	stop  func() error
}

// addresses returns some of 127.1.0.0/16.
func addresses(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("127.1.%d.%d", i/250, i%250+1))
	}
	return list
}

// startSSH starts sshd for a number of addresses on a port, and writes an inventory, and a
// configuration for ssh(1). config is more of sshd_config.
func startSSH(ctx context.Context, dir string, hosts int, port, config string) (f *fleet, err error) {
	f = &fleet{dir: dir, hosts: addresses(hosts), port: port}
	for _, d := range []string{dir, "/run/sshd"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := f.writeClient(); err != nil {
		return nil, err
	}
	f.stop, err = f.sshd(ctx, port, config)
	return f, err
}

// sshd starts an sshd with the keys of the fleet.
func (f *fleet) sshd(ctx context.Context, port, config string) (stop func() error, err error) {
	text := "ListenAddress 0.0.0.0:" + port + "\nHostKey " + f.dir + "/host\nAuthorizedKeysFile " + f.dir + "/authorized_keys\n" +
		"PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n" +
		"PidFile none\nSubsystem sftp internal-sftp\n" + config
	file := f.dir + "/sshd_config." + port
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(file + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "/usr/sbin/sshd", "-D", "-e", "-f", file)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	stop = func() error {
		err := cmd.Process.Kill()
		cmd.Wait() // "signal: killed", as intended
		return err
	}
	if err := awaitPort(f.hosts[0] + ":" + port); err != nil {
		text, rerr := os.ReadFile(file + ".log")
		return nil, errors.Join(fmt.Errorf("sshd does not answer: %w: %s", err, text), rerr, stop())
	}
	return stop, nil
}

func awaitPort(address string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// writeClient writes keys, known_hosts, an inventory, and a configuration for ssh(1).
// The key exchange is named there because OpenSSH's default costs its clients more
// than all the rest.
func (f *fleet) writeClient() error {
	host, err := newKey(f.dir + "/host")
	if err != nil {
		return err
	}
	user, err := newKey(f.dir + "/user")
	if err != nil {
		return err
	}
	inventory := "ssh: {user: root, config: none, identity: " + f.dir + "/user, known_hosts: " + f.dir + "/known_hosts}\nhosts:\n"
	known := ""
	for i, h := range append([]string{"127.2.0.1"}, f.hosts...) {
		if i > 0 {
			inventory += fmt.Sprintf("  h%04d: {address: %s, port: %s}\n", i, h, f.port)
		}
		known += h + " " + host + "[" + h + "]:" + f.port + " " + host + "[" + h + "]:2022 " + host
	}
	for name, text := range map[string]string{
		"authorized_keys": user,
		"known_hosts":     known,
		"fleet.yml":       inventory,
		"ssh_config": "User root\nPort " + f.port + "\nIdentityFile " + f.dir + "/user\nIdentitiesOnly yes\nUserKnownHostsFile " + f.dir + "/known_hosts\n" +
			"StrictHostKeyChecking yes\nBatchMode yes\nLogLevel ERROR\nKexAlgorithms curve25519-sha256\n",
	} {
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// vsfleet returns a command line of vsfleet for these hosts.
func (f *fleet) vsfleet(b *bench, forks string, args ...string) []string {
	return append([]string{b.vsfleet, "--inventory", f.dir + "/fleet.yml", "--forks", forks, "--quiet"}, args...)
}

// peers returns the tools that run a command on all hosts, each with its own way to
// count those that it lost if lose is set.
func (f *fleet) peers(forks, command string, lose bool, sshOptions string) []tool {
	targets := strings.Join(f.hosts, ",")
	opts := "-F " + f.dir + "/ssh_config" + sshOptions
	count := func(text string) func(string) int {
		if lose {
			return countLines(text)
		}
		return nil
	}
	return []tool{
		{name: "pdsh -R ssh", args: []string{"pdsh", "-S", "-R", "ssh", "-f", forks, "-w", targets, command},
			env: []string{"PDSH_SSH_ARGS=" + opts + " -2 -a -x -l%u %h"}, lost: count("ssh exited with exit code 255")},
		{name: "clush", args: []string{"clush", "-S", "-f", forks, "-o", opts, "-w", targets, command}, lost: count("exited with exit code 255")},
		// The leanest module, which needs no Python on the host. The usual -m ping takes
		// two and a half times as much.
		{name: "ansible -m raw", args: []string{"ansible", "all", "-i", targets + ",", "-f", forks, "-m", "raw", "-a", command}, slow: true,
			env: ansibleEnv(opts), lost: count("UNREACHABLE!")},
	}
}

func ansibleEnv(opts string) []string {
	return []string{"ANSIBLE_SSH_ARGS=" + opts + " -o ControlMaster=no", "ANSIBLE_NOCOLOR=1", "ANSIBLE_SSH_RETRIES=0"}
}

// newKey writes a private key, and returns the public one as a line.
func newKey(path string) (string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	return string(ssh.MarshalAuthorizedKey(key)), nil
}
