package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Host is a lab host in its current state.
type Host struct {
	Name    string
	Address netip.Addr
	PID     int  // of its process 1 on this machine; 0: the host is down
	SSH     bool // its sshd answers
	Guests  int  // that run in it
}

func hostName(n int) string { return "lab" + strconv.Itoa(n) }

// inspect returns host n as the kernel has it.
func (s *state) inspect(ctx context.Context, lab cgroup, n int) (Host, error) {
	h := Host{Name: hostName(n), Address: s.address(n)}
	g := lab.child(h.Name)
	var err error
	if h.PID, err = initOf(g); err != nil || h.PID == 0 {
		return h, err
	}
	h.SSH = answers(ctx, h.Address)
	guests, err := os.ReadDir(g.file("vservers"))
	if err != nil && !isGone(err) {
		return h, err
	}
	for _, guest := range guests {
		if guest.IsDir() {
			populated, err := g.child("vservers").child(guest.Name()).populated()
			if err != nil {
				return h, err
			}
			if populated {
				h.Guests++
			}
		}
	}
	return h, nil
}

// initOf finds the process that is process 1 in its own pid namespace.
func initOf(g cgroup) (int, error) {
	pids, err := g.child(initScope).pids()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(status)) {
			// One id for each namespace from ours to its own: a guest's process
			// 1 has three.
			if f := strings.Fields(line); len(f) == 3 && f[0] == "NSpid:" && f[2] == "1" {
				return pid, nil
			}
		}
	}
	return 0, nil
}

// answers reports whether an SSH server greets at address.
func answers(ctx context.Context, address netip.Addr) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(address, 22).String())
	if err != nil {
		return false
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok && conn.SetReadDeadline(deadline) != nil {
		return false
	}
	greeting, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.HasPrefix(greeting, "SSH-2.0-")
}

// launch holds all that starting a host needs.
type launch struct {
	*state
	dir        string // the lab's
	cgroup     cgroup // the lab's
	bridge     netlink.Link
	authorized []byte
	resolver   []byte
}

// start makes host n run, from whatever an earlier start or a killed one left.
func (l *launch) start(ctx context.Context, n int) error {
	name := hostName(n)
	g := l.cgroup.child(name)
	if err := g.destroy(ctx); err != nil {
		return err
	}
	if err := removeLink(portName(l.Name, n)); err != nil {
		return err
	}
	hostDir := filepath.Join(l.dir, "hosts", name)
	if err := l.prepare(hostDir, n); err != nil {
		return err
	}
	if err := g.make(); err != nil {
		return err
	}
	if err := l.runInit(ctx, g, hostDir, n); err != nil {
		return errors.Join(err, g.destroy(context.WithoutCancel(ctx)))
	}
	key, err := os.ReadFile(hostKeyPath(hostDir) + ".pub")
	if err != nil {
		return err
	}
	switch err := checkKey(ctx, l.address(n), key); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%w (see %s)", err, consoleLog(hostDir))
	}
	return nil
}

var errOwnKey = errors.New("it has the host's key")

// checkKey checks that the SSH server at address has the key of a public key file:
// what answers there may be another host, if the network is used twice.
func checkKey(ctx context.Context, address netip.Addr, public []byte) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey(public)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	to := netip.AddrPortFrom(address, 22).String()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return fmt.Errorf("its sshd does not answer: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_, _, _, err = ssh.NewClientConn(conn, to, &ssh.ClientConfig{
		HostKeyAlgorithms: []string{key.Type()},
		HostKeyCallback: func(_ string, _ net.Addr, has ssh.PublicKey) error {
			if bytes.Equal(has.Marshal(), key.Marshal()) {
				return errOwnKey // that is all there is to know
			}
			return fmt.Errorf("another host answers on %s, with the key %s", address, ssh.FingerprintSHA256(has))
		},
	})
	if errors.Is(err, errOwnKey) {
		return nil
	}
	return err
}

func consoleLog(hostDir string) string { return filepath.Join(hostDir, "console.log") }

func (l *launch) prepare(hostDir string, n int) error {
	if err := os.Mkdir(hostDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	hostKey, hostPub, err := keyPair(hostKeyPath(hostDir), "root@"+hostName(n))
	if err != nil {
		return err
	}
	layer, err := openLayer(hostDir)
	if err != nil {
		return err
	}
	defer layer.root.Close()
	return layer.write(identity{
		name: hostName(n), address: l.address(n), hostKey: hostKey, hostPub: hostPub,
		authorized: l.authorized, resolver: l.resolver, labDir: l.dir,
	})
}

func hostKeyPath(hostDir string) string { return filepath.Join(hostDir, "ssh_host_ed25519_key") }

// runInit starts host n's process 1 and returns when its sshd listens.
func (l *launch) runInit(ctx context.Context, g cgroup, hostDir string, n int) error {
	console, err := os.OpenFile(consoleLog(hostDir), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	into, err := os.Open(string(g))
	if err != nil {
		return err
	}
	defer into.Close()
	control, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer control.Close()
	defer theirs.Close()

	cmd := exec.Command("/proc/self/exe", InitCommand)
	cmd.Args[0] = "vsfleet"
	cmd.Dir = hostDir
	cmd.Env = []string{initEnv + "=1"}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{theirs} // controlFD
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		UseCgroupFD: true,
		CgroupFD:    int(into.Fd()),
		Setsid:      true, // the host outlives our terminal
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start init: %w", err)
	}
	theirs.Close()
	// The host goes on when we end; while we are there, we reap it.
	go cmd.Wait()

	if err := l.connect(l.bridge, n, cmd.Process.Pid); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { control.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	config := hostConfig{
		Hostname: hostName(n),
		Address:  netip.PrefixFrom(l.address(n), l.Subnet.Bits()),
		Gateway:  l.gateway(),
	}
	err = json.NewEncoder(control).Encode(config)
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(control)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("talk to init: %w", err)
	case len(answer) == 0:
		return fmt.Errorf("init ended without a word (see %s)", consoleLog(hostDir))
	case string(answer) != ready:
		return fmt.Errorf("%s (see %s)", answer, consoleLog(hostDir))
	}
	return nil
}

// socketPair returns our end, whose deadlines work, and the child's.
func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "control")
	defer f.Close() // FileConn has a copy
	theirs = os.NewFile(uintptr(fds[1]), "control of init")
	if ours, err = net.FileConn(f); err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	return ours, theirs, nil
}
