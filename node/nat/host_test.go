package nat

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Each test runs on its own host: the test binary starts itself again in new network
// and mount namespaces. An outside machine and guests are further namespaces, each held
// by a process that waits.

const (
	roleVar = "NAT_TEST_ROLE" // "wait", or the name of the test whose host this is
	waiting = "wait"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVar) == waiting {
		fmt.Println(waiting)
		io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// onHost runs body on a fresh host.
func onHost(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv(roleVar) == t.Name() {
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		must(t, unix.Mount("run", "/run", "tmpfs", 0, ""))
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetUp(lo))
		body(t)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", fmt.Sprintf("-test.short=%t", testing.Short()))
	cmd.Env = append(os.Environ(), roleVar+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("on its own host: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// threadOnHost puts only the benchmark's thread on a fresh host, which is enough for
// code that stays in its goroutine. The thread ends with the goroutine.
func threadOnHost(b *testing.B) {
	b.Helper()
	runtime.LockOSThread()
	must(b, unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS))
	must(b, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(b, unix.Mount("run", "/run", "tmpfs", 0, ""))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is a network namespace; nil stands for the host's.
type machine struct {
	name  string
	pid   int
	netns *os.File
	end   func() // kills the process; the namespace lives while netns is open
}

// newMachine starts a machine; with an XID, in a user namespace like a guest's.
func newMachine(t testing.TB, name string, xid int) *machine {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+waiting)
	// It ends with its input: Pdeathsig would kill it as soon as the thread that started it ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if xid != 0 {
		ids := []syscall.SysProcIDMap{{HostID: xid << 16, Size: 1 << 16}}
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.Credential = &syscall.Credential{}
	}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	m := &machine{name: name, pid: cmd.Process.Pid}
	m.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid))
	must(t, err)
	m.end = func() {
		stdin.Close()
		cmd.Wait()
	}
	t.Cleanup(func() { m.end(); m.netns.Close() })
	return m
}

// do runs fn in the machine's network namespace.
func (m *machine) do(t testing.TB, fn func() error) {
	t.Helper()
	must(t, m.try(fn))
}

func (m *machine) try(fn func() error) error {
	if m == nil {
		return fn()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Setns(int(m.netns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

// serve answers on TCP and UDP with the machine's name and the client's address.
func (m *machine) serve(t testing.TB, name, addr string) {
	t.Helper()
	m.do(t, func() error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close(); p.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, answer(name, c.RemoteAddr()))
				c.Close()
			}
		}()
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				p.WriteTo([]byte(answer(name, from)), from)
			}
		}()
		return nil
	})
}

func answer(name string, from net.Addr) string {
	return name + " for " + netip.MustParseAddrPort(from.String()).Addr().Unmap().String()
}

// ask returns the answer from an address, or why there is none.
func (m *machine) ask(network, addr string) (got string) {
	return m.askFor(10*time.Second, network, addr) // an answer may be slow, but must come
}

func (m *machine) askFor(patience time.Duration, network, addr string) (got string) {
	err := m.try(func() error {
		d := net.Dialer{Timeout: patience}
		c, err := d.Dial(network, addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if network == "udp" {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		got = string(b[:n])
		return err
	})
	if err != nil {
		return "nothing: " + err.Error()
	}
	return got
}

// wants asks over TCP and UDP and fails the test unless both answers are as given.
func (m *machine) wants(t testing.TB, what, addr, want string) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		if got := m.ask(network, addr); got != want {
			t.Errorf("%s (%s %s): %s, want %s", what, network, addr, got, want)
		}
	}
}

// quiet is the time after which silence counts as no answer.
const quiet = 700 * time.Millisecond

func (m *machine) wantsNothing(t testing.TB, what, addr string) {
	t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		if got := m.askFor(quiet, network, addr); !strings.HasPrefix(got, "nothing") {
			t.Errorf("%s (%s %s): %s, want nothing", what, network, addr, got)
		}
	}
}

const (
	host4, host6       = "203.0.113.11", "2001:db8::11"
	second4, second6   = "203.0.113.12", "2001:db8::12" // also the host's
	outside4, outside6 = "203.0.113.1", "2001:db8::1"
)

// outside returns a machine on the host's uplink, up0, through which the Internet is reached.
func outside(t testing.TB) *machine {
	t.Helper()
	m := newMachine(t, "outside", 0)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "eth0"
	veth.PeerNamespace = netlink.NsFd(int(m.netns.Fd()))
	must(t, netlink.LinkAdd(veth))
	configure := func(dev string, addrs ...string) error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if err := netlink.AddrAdd(l, address(netip.MustParsePrefix(a))); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	}
	must(t, configure("up0", host4+"/24", second4+"/24", host6+"/64"))
	up0, err := netlink.LinkByName("up0")
	must(t, err)
	// Not preferred, or IPv6 would make it the source of what goes out.
	deprecated := address(netip.MustParsePrefix(second6 + "/64"))
	deprecated.ValidLft = 1 << 30
	must(t, netlink.AddrAdd(up0, deprecated))
	m.do(t, func() error { return configure("lo") }) // net.Listen probes for IPv6 there
	m.do(t, func() error { return configure("eth0", outside4+"/24", outside6+"/64") })
	for _, gw := range []string{outside4, outside6} {
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Index, Gw: net.ParseIP(gw)}))
	}
	m.serve(t, "outside", ":7")
	for deadline := time.Now().Add(5 * time.Second); ; { // until up0's link-local address is no longer tentative
		got := (*machine)(nil).ask("tcp", "["+outside6+"]:7")
		if got == "outside for "+host6 {
			return m
		}
		if time.Now().After(deadline) {
			t.Fatalf("the outside answers by IPv6: %s", got)
		}
	}
}

// address gives a device of this network namespace addresses, and sets it up.
func (*machine) address(dev string, addrs ...string) error {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := netlink.AddrAdd(l, address(single(netip.MustParseAddr(a)))); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// guest returns an attached guest that serves on port 22.
func guest(t testing.TB, name string, xid int) *machine {
	t.Helper()
	m := newMachine(t, name, xid)
	must(t, Attach(context.Background(), m.netns, xid))
	m.serve(t, name, ":22")
	return m
}

func syncGuests(t testing.TB, guests ...Guest) {
	t.Helper()
	syncWant(t, Want{Guests: guests})
}

func syncWant(t testing.TB, w Want) {
	t.Helper()
	must(t, Sync(context.Background(), func(context.Context) (Want, error) { return w, nil }))
}

// counted matches the elements that connections added to the sets that count them.
var counted = regexp.MustCompile(`(?s)(set flows[46] \{[^}]*?)\n\t\telements = \{.*?\}`)

// ruleset returns what nft lists of all tables, without connections.
func ruleset(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft list ruleset: %v\n%s", err, out)
	}
	return counted.ReplaceAllString(string(out), "$1")
}

func nft(t testing.TB, commands string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}
