package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/nat"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/test/script"
)

const (
	hostLoop     = 7001 // TCP, on the host's 127.0.0.1, 127.9.9.9 and ::1
	hostEcho     = 7002 // UDP, on the same
	hostWildcard = 7003 // TCP, on all addresses of the host
	hostMetadata = 7006 // TCP and UDP, where clouds serve metadata
	guestLoop    = 7004 // TCP, on the localhost of another guest
	guestPrivate = 7005 // TCP, on the private address of another guest
	guestPort    = 8025 // of another guest, on the shared address
	abstractName = "e2e-secret-door"
	hostFile     = "/srv/secret-of-the-host"
	hostSecret   = "nobody in a guest may read this"
)

var metadata = []string{"169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"}

const attackFleet = `
images:
  busybox: {method: template, args: [-t, /srv/busybox.tar]}
guests:
  victim:
    on: lab1
    image: busybox
    context: 125
    network: {mode: shared, address: host, ports: [8025/tcp]}
    init: {command: [sh, -c, "busybox httpd -p 127.0.0.1:7004; busybox httpd -p '[::1]:7004'; exec /sbin/web 8025"]}
  bystander:
    on: lab1
    image: busybox
    context: 126
    network: {mode: own, addresses: [@NET@.202/24], dev: eth0}
    init: {command: [/sbin/web, "80"]}
  hidden:
    on: lab1
    image: busybox
    context: 127
    network: {mode: nat}
    init: {command: [/sbin/web, "7005"]}
  shared:
    on: lab1
    image: busybox
    context: 130
    network: {mode: shared, address: host, ports: [8001/tcp]}
    mounts: [{source: /run/locked, target: /run/locked}]
    init: {command: [sleep, "3600"]}
  own:
    on: lab1
    image: busybox
    context: 131
    network: {mode: own, addresses: [@NET@.201/24], dev: eth0}
    mounts: [{source: /run/locked, target: /run/locked}]
    init: {command: [sleep, "3600"]}
  nat:
    on: lab1
    image: busybox
    context: 132
    network: {mode: nat, forward: ["8080:80/tcp"]}
    mounts: [{source: /run/locked, target: /run/locked}]
    init: {command: [sleep, "3600"]}
`

// TestNobodyGetsOutOfAGuest runs test/attack as root in a real guest of
// each network mode, with another guest and the host as victims. The same
// program on the host itself reaches what it must not reach from inside, so
// it is the protection that refuses it.
func TestNobodyGetsOutOfAGuest(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	program := buildAttack(t)
	l.fleet(attackFleet)
	l.image("lab1", map[string][]byte{"bin/attack": program})
	for _, a := range metadata {
		l.mustOn("lab1", "ip", "address", "add", netip.PrefixFrom(netip.MustParseAddr(a), netip.MustParseAddr(a).BitLen()).String(), "dev", "lo")
	}
	l.mustOn("lab1", "mkdir", "/run/locked")
	listenOnHost(t, l.Hosts[0].PID)
	for path, content := range map[string][]byte{hostFile: []byte(hostSecret), "/srv/attack": program} {
		if err := l.put("lab1", path, content); err != nil {
			t.Fatal(err)
		}
	}
	l.mustOn("lab1", "chmod", "755", "/srv/attack")
	// A number that no process of a guest has.
	pid := strings.TrimSpace(l.mustOn("lab1", "sh", "-c", "for i in $(seq 500); do /bin/true; done; sleep 3600 >/dev/null 2>&1 & echo $!"))

	var groups []string
	for _, match := range regexp.MustCompile(` shared:([0-9]+)`).FindAllStringSubmatch(l.mustOn("lab1", "cat", "/proc/self/mountinfo"), -1) {
		groups = append(groups, match[1])
	}

	l.must("apply")
	host := l.Hosts[0].Address.String()
	for address, want := range map[string]string{host + ":8025": "victim", l.network() + ".202": "bystander"} {
		if err := script.WaitForPage(address, want); err != nil {
			t.Fatal(err)
		}
	}
	// It listens on its localhost, and reaches that itself.
	l.must("guest", "exec", "lab1/victim", "--", "sh", "-c", "nc 127.0.0.1 7004 </dev/null")
	l.must("guest", "exec", "lab1/victim", "--", "sh", "-c", "nc ::1 7004 </dev/null")
	hidden, _ := nat.Addresses(127)
	attack := func(mode string, own ...string) []string {
		return []string{
			"--mode=" + mode, "--complete", "--own=" + strings.Join(own, ","), "--other=" + l.network() + ".202",
			fmt.Sprint("--other-port=", guestPort), fmt.Sprint("--loop=", hostLoop), fmt.Sprint("--loop-udp=", hostEcho),
			fmt.Sprint("--wildcard=", hostWildcard), fmt.Sprint("--metadata=", hostMetadata), "--host=" + host,
			"--other-loop=" + netip.AddrPortFrom(netctx.Loopback(125), guestLoop).String(),
			"--other-loop6=" + netip.AddrPortFrom(netctx.Loopback6(125), guestLoop).String(),
			"--private=" + netip.AddrPortFrom(hidden.Addr(), guestPrivate).String(),
			"--abstract=" + abstractName, "--pid=" + pid, "--file=" + hostFile, "--secret=" + hostSecret, "--locked=/run/locked",
			"--host-groups=" + strings.Join(groups, ","),
		}
	}
	guests := map[string][]string{
		"shared": attack("shared", host),
		"own":    attack("own", l.network()+".201"),
		"nat":    attack("nat"),
	}
	for mode, args := range guests {
		t.Run("from a guest in mode "+mode, func(t *testing.T) {
			argv := append([]string{"guest", "exec", "lab1/" + mode, "--", "/bin/attack"}, args...)
			stdout, stderr, exit := l.vsfleet(argv...)
			rows := 0
			for line := range strings.Lines(stdout) {
				if _, verdict, ok := strings.Cut(line, ": "); !ok || !strings.HasPrefix(verdict, "refused ") {
					t.Error(strings.TrimSpace(line))
				}
				rows++
			}
			if exit != 0 || rows < 100 {
				t.Errorf("exit status %d after %d attacks: %s", exit, rows, stderr)
			}
		})
	}
	t.Run("from the host itself it reaches them", func(t *testing.T) {
		// A guest's localhost is closed to the host as well (node/netctx/strangers_test.go).
		stdout, stderr, exit, err := l.on("lab1", nil, append([]string{"/srv/attack"}, attack("shared", host)...)...)
		if err != nil || exit != 1 {
			t.Errorf("exit status %d, %v: %s", exit, err, stderr)
		}
		for _, name := range []string{
			"bind-other", "send-from-other", "bind-unowned-port-own",
			"connect-host-127.0.0.1", "connect-host-127.9.9.9", "connect-host-::1", "echo-host-127.0.0.1", "echo-host-::1",
			"connect-private", "connect-private-as-ipv6", "send-private", "connect-host-wildcard-127.0.0.1", "connect-host-wildcard-from-localhost",
			"connect-metadata-169.254.169.254", "echo-metadata-168.63.129.16", "connect-metadata-fd00:ec2::254", "connect-metadata-as-ipv6",
			"hold-tcp-ports", "hold-udp-ports",
			"raw-socket", "packet-socket", "packet-socket-of-1996", "sock-diag", "abstract-stream", "change-addresses",
			"signal-host-process", "see-host-process", "open-host-process", "read-host-file", "share-mounts-with-host",
		} {
			if !strings.Contains(stdout, "attack "+name+": REACHED ") {
				t.Errorf("%s is not reached even from the host: it shows nothing", name)
			}
		}
		if t.Failed() {
			t.Log(stdout)
		}
	})
}

func buildAttack(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "attack")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../../test/attack")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the attack: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// listenSoon listens on an address that was just added: the kernel makes the
// local route of an IPv6 address a moment later.
func listenSoon(address string) (net.Listener, error) {
	for until := time.Now().Add(5 * time.Second); ; {
		l, err := net.Listen("tcp", address)
		if !errors.Is(err, unix.EADDRNOTAVAIL) || time.Now().After(until) {
			return l, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// listenOnHost opens the services of a host that guests must not reach. A
// socket belongs to the network in which it was made.
func listenOnHost(t *testing.T, pid int) {
	t.Helper()
	var closers []io.Closer
	t.Cleanup(func() {
		for _, c := range closers {
			c.Close()
		}
	})
	if err := inNetworkOf(pid, func() error {
		for _, address := range metadata {
			l, err := listenSoon(net.JoinHostPort(address, strconv.Itoa(hostMetadata)))
			if err != nil {
				return err
			}
			u, err := net.ListenPacket("udp", net.JoinHostPort(address, strconv.Itoa(hostMetadata)))
			if err != nil {
				return err
			}
			closers = append(closers, l, u)
			go accept(l)
			go echo(u)
		}
		for _, address := range []string{"127.0.0.1", "127.9.9.9", "::1", "abstract", ""} {
			var l net.Listener
			var err error
			switch address {
			case "abstract":
				l, err = net.Listen("unix", "@"+abstractName)
			case "":
				l, err = net.Listen("tcp", ":"+strconv.Itoa(hostWildcard))
			default:
				l, err = net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(hostLoop)))
			}
			if err != nil {
				return err
			}
			closers = append(closers, l)
			go accept(l)
			if address == "" || address == "abstract" {
				continue
			}
			u, err := net.ListenPacket("udp", net.JoinHostPort(address, strconv.Itoa(hostEcho)))
			if err != nil {
				return err
			}
			closers = append(closers, u)
			go echo(u)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func inNetworkOf(pid int, do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = do()
		}
		result <- err
	}()
	return <-result
}

func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			c.Close()
		}
	}
}

func echo(u net.PacketConn) {
	b := make([]byte, 64)
	for {
		n, from, err := u.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			u.WriteTo(b[:n], from)
		}
	}
}
