package main

import (
	"bytes"
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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/node/cgroup"
)

// The fleet is one sshd that answers on fleetHosts addresses, asked over at most
// fleetForks connections at once.
const (
	fleetHosts = 100
	fleetForks = 32
)

// fleetRow measures what a controller spends per host: connect, authenticate, one
// command. The processor time is that of all processes of a tool, as a cgroup of
// its own counts it, without that of sshd.
func fleetRow(ctx context.Context, b *bench) (err error) {
	f, stop, err := startSSH(ctx, "/run/fleet")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	forks := strconv.Itoa(fleetForks)
	targets := strings.Join(f.hosts, ",")
	tools := []tool{
		{name: "vsfleet ping", args: []string{b.vsfleet, "--inventory", f.dir + "/fleet.yml", "--forks", forks, "ping"}},
		{name: "pdsh -R ssh", args: []string{"pdsh", "-R", "ssh", "-f", forks, "-w", targets, "true"},
			env: []string{"PDSH_SSH_ARGS=-F " + f.dir + "/ssh_config -2 -a -x -l%u %h"}},
		// The leanest module, which needs no Python on the host. The usual -m ping takes
		// two and a half times as much.
		{name: "ansible -m raw", args: []string{"ansible", "all", "-i", targets + ",", "-f", forks, "-m", "raw", "-a", "true"}, slow: true,
			env: []string{"ANSIBLE_SSH_ARGS=-F " + f.dir + "/ssh_config -o ControlMaster=no", "ANSIBLE_NOCOLOR=1"}},
	}
	// Warm: vsnode is pushed, Python's modules are compiled.
	for _, t := range tools[:2] {
		if _, err := t.measure(ctx, b); err != nil {
			return err
		}
	}
	rounds := b.rounds(3)
	runs := make([][]cost, len(tools))
	for round := range rounds {
		for i := range tools {
			k := (i + round) % len(tools)
			if tools[k].slow && round > 0 {
				continue
			}
			c, err := tools[k].measure(ctx, b)
			if err != nil {
				return err
			}
			runs[k] = append(runs[k], c)
		}
	}
	fmt.Printf("\nAsk %d hosts, %d at once (target: 1.5 ms and 100 KB beyond 20 MB a host)\n", fleetHosts, fleetForks)
	fmt.Printf("  %-20s %16s %26s %10s %10s  runs\n", "", "processor a host", "range", "in all", "memory")
	var own cost
	for i, t := range tools {
		slices.SortFunc(runs[i], func(a, b cost) int { return int(a.cpu - b.cpu) })
		mid, last := runs[i][len(runs[i])/2], runs[i][len(runs[i])-1]
		for _, c := range runs[i] {
			mid.memory = max(mid.memory, c.memory)
		}
		if i == 0 {
			own = mid
		}
		fmt.Printf("  %-20s %16s %12s … %11s %10s %7.1f MB  %d\n", t.name, threeDigits(mid.cpu/fleetHosts),
			threeDigits(runs[i][0].cpu/fleetHosts), threeDigits(last.cpu/fleetHosts), threeDigits(mid.wall), float64(mid.memory)/1e6, len(runs[i]))
		if i > 0 {
			fmt.Printf("  vsfleet ping : %s = %.3f of the processor, %.3f of the time\n", t.name,
				float64(own.cpu)/float64(mid.cpu), float64(own.wall)/float64(mid.wall))
		}
	}
	return nil
}

// cost of one run of a tool on all hosts.
type cost struct {
	cpu, wall time.Duration
	memory    int64 // the most at once, shared pages counted once
}

type tool struct {
	name string
	args []string
	env  []string
	slow bool // one run has to do
}

// measure runs a tool in a cgroup of its own.
func (t tool) measure(ctx context.Context, b *bench) (c cost, err error) {
	cg := cgroup.Dir(filepath.Join(b.cgroups, "tool"))
	if err := os.Mkdir(string(cg), 0o755); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, cg.Kill(ctx), cg.Remove()) }()
	dir, err := os.Open(string(cg))
	if err != nil {
		return c, err
	}
	defer dir.Close()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, t.args[0], t.args[1:]...)
	cmd.Env = append(append(os.Environ(), "HOME="+home), t.env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return c, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for look := time.NewTicker(50 * time.Millisecond); ; {
		select {
		case err = <-done:
			look.Stop()
			c.wall = time.Since(start)
			if err != nil {
				return c, fmt.Errorf("%s: %w: %s", t.name, err, out.Bytes())
			}
			c.cpu, err = cpuOf(cg)
			return c, err
		case <-look.C:
			m, err := memoryOf(cg)
			if err != nil {
				return c, err
			}
			c.memory = max(c.memory, m)
		}
	}
}

// cpuOf returns the processor time of a cgroup, ended processes included. The
// kernel counts it without any controller (cgroup-v2.rst, "CPU").
func cpuOf(cg cgroup.Dir) (time.Duration, error) {
	file := filepath.Join(string(cg), "cpu.stat")
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var µs int64
	if _, err := fmt.Sscanf(string(text), "usage_usec %d", &µs); err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return time.Duration(µs) * time.Microsecond, nil
}

// memoryOf returns the proportional set size of a cgroup's processes.
func memoryOf(cg cgroup.Dir) (sum int64, err error) {
	pids, err := cg.PIDs()
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // ended meanwhile
		}
		_, after, _ := strings.Cut(string(text), "\nPss:")
		var kib int64
		if _, err := fmt.Sscan(after, &kib); err == nil {
			sum += kib * 1024
		}
	}
	return sum, err
}

// fleet is the addresses of one sshd and what a client needs to know.
type fleet struct {
	dir   string
	hosts []string
}

// startSSH starts sshd on 127.1.0.1 and so on, and writes an inventory, and a
// configuration for ssh(1).
func startSSH(ctx context.Context, dir string) (f fleet, stop func() error, err error) {
	f.dir = dir
	for i := range fleetHosts {
		f.hosts = append(f.hosts, fmt.Sprintf("127.1.0.%d", i+1))
	}
	for _, d := range []string{dir, "/run/sshd"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return f, nil, err
		}
	}
	host, err := newKey(dir + "/host")
	if err != nil {
		return f, nil, err
	}
	user, err := newKey(dir + "/user")
	if err != nil {
		return f, nil, err
	}
	inventory := "ssh: {user: root, identity: " + dir + "/user, known_hosts: " + dir + "/known_hosts}\nhosts:\n"
	known := ""
	for i, h := range f.hosts {
		inventory += fmt.Sprintf("  h%03d: {address: %s}\n", i+1, h)
		known += h + " " + host
	}
	for name, text := range map[string]string{
		"authorized_keys": user,
		"known_hosts":     known,
		"fleet.yml":       inventory,
		"ssh_config": "User root\nIdentityFile " + dir + "/user\nIdentitiesOnly yes\nUserKnownHostsFile " + dir + "/known_hosts\n" +
			"StrictHostKeyChecking yes\nBatchMode yes\n",
		"sshd_config": "ListenAddress 0.0.0.0\nHostKey " + dir + "/host\nAuthorizedKeysFile " + dir + "/authorized_keys\n" +
			"PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n" +
			"MaxStartups 1000\nPidFile none\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return f, nil, err
		}
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		return f, nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "/usr/sbin/sshd", "-D", "-e", "-f", dir+"/sshd_config")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return f, nil, fmt.Errorf("start sshd: %w", err)
	}
	stop = func() error {
		err := cmd.Process.Kill()
		cmd.Wait() // "signal: killed", as intended
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", f.hosts[0]+":22")
		if err == nil {
			return f, stop, c.Close()
		}
		if time.Now().After(deadline) {
			text, rerr := os.ReadFile(dir + "/log")
			return f, nil, errors.Join(fmt.Errorf("sshd does not answer: %w: %s", err, text), rerr, stop())
		}
		time.Sleep(10 * time.Millisecond)
	}
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
