package network

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// The tests run on a host of their own: the test binary again, in new network and
// mount namespaces, with an eth0 that has 198.51.100.1/24. Guests are the same
// binary once more, in a cgroup and a user namespace each, and where their mode
// is private, in a network namespace.
const (
	roleVar  = "NETWORK_TEST_ROLE"
	onHost   = "host"
	asGuest  = "guest"
	attacher = "attach" // a vsnode that can be killed
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVar) {
	case asGuest:
		beGuest()
	case attacher:
		err = beAttacher(os.Args[1:])
	case onHost:
		if err = makeHost(); err == nil {
			os.Exit(m.Run())
		}
	default:
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), roleVar+"="+onHost)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
		err = cmd.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// makeHost also gives the host a metadata service, as clouds have.
func makeHost() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for dir, fstype := range map[string]string{"/run": "tmpfs", "/sys/fs/bpf": "bpf"} {
		if err := unix.Mount(fstype, dir, fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for file, value := range map[string]string{
		"ipv6/conf/default/addr_gen_mode": "1", // no link-local addresses that come some time later
		"ipv4/ping_group_range":           "0 2147483647",
	} {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil {
			return err
		}
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}); err != nil {
		return err
	}
	for name, address := range map[string]string{"lo": metadataService + "/32", "eth0": "198.51.100.1/24", "peer0": ""} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err == nil && address != "" {
			var addr *netlink.Addr
			if addr, err = netlink.ParseAddr(address); err == nil {
				err = netlink.AddrAdd(link, addr)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	l, err := net.Listen("tcp4", metadataService+":80")
	if err != nil {
		return err
	}
	go serve(l)
	return nil
}

const metadataService = "169.254.169.254"

func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// beGuest does what it reads from standard input, and answers "ok" or the error.
func beGuest() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, address, _ := strings.Cut(in.Text(), " ")
		var err error
		switch verb {
		case "listen":
			var l net.Listener
			if l, err = net.Listen("tcp4", address); err == nil {
				go serve(l)
			}
		case "dial":
			var c net.Conn
			if c, err = net.DialTimeout("tcp4", address, time.Second); err == nil {
				c.Close()
			}
		}
		answer := "ok"
		if err != nil {
			answer = err.Error()
		}
		fmt.Println(answer)
	}
}

// the guest's process
type process struct {
	pid   int
	in    io.WriteCloser
	out   *bufio.Reader
	netns *os.File
	end   func()
}

func (p *process) tell(t *testing.T, line string) string {
	t.Helper()
	fmt.Fprintln(p.in, line)
	answer, err := p.out.ReadString('\n')
	must(t, err)
	return strings.TrimSpace(answer)
}

// newCgroup makes a cgroup for a guest.
func newCgroup(t *testing.T, name string) string {
	t.Helper()
	mount, err := cgroup.Mount()
	must(t, err)
	dir, err := os.MkdirTemp(mount, "vsfleet-test-network-"+name+"-")
	must(t, err)
	t.Cleanup(func() { must(t, cgroup.Dir(dir).Remove()) })
	return dir
}

// newProcess starts a guest's process in its cgroup.
func newProcess(t *testing.T, cgroupDir string, xid int, private bool) *process {
	t.Helper()
	dir, err := os.Open(cgroupDir)
	must(t, err)
	defer dir.Close()
	ids := []syscall.SysProcIDMap{{HostID: xid << 16, Size: 1 << 16}}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+asGuest)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{},
		UseCgroupFD: true, CgroupFD: int(dir.Fd()),
	}
	if private {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	p := &process{}
	p.in, err = cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p.out, p.pid = bufio.NewReader(out), cmd.Process.Pid
	p.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", p.pid))
	must(t, err)
	p.end = func() { // with its namespaces
		p.in.Close()
		cmd.Wait()
		p.netns.Close()
	}
	t.Cleanup(p.end)
	return p
}

// kernelState returns those parts of the host's network that a mode may change.
func kernelState(t *testing.T) string {
	t.Helper()
	var list []string
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		list = append(list, fmt.Sprintf("link %s", l.Attrs().Name))
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		must(t, err)
		for _, a := range addrs {
			list = append(list, fmt.Sprintf("address %s on %s", a.IPNet, l.Attrs().Name))
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	must(t, err)
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP.IsMulticast() {
			continue // appears some time after its device is up
		}
		list = append(list, fmt.Sprintf("route %s", r.Dst))
	}
	conn, err := nftables.New()
	must(t, err)
	tables, err := conn.ListTables()
	must(t, err)
	for _, table := range tables {
		sets, err := conn.GetSets(table)
		must(t, err)
		list = append(list, fmt.Sprintf("table %s", table.Name))
		for _, s := range sets {
			elements, err := conn.GetSetElements(s)
			must(t, err)
			list = append(list, fmt.Sprintf("set %s %s: %d elements", table.Name, s.Name, len(elements)))
		}
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

// neighbours holds the guests of the test's host.
type neighbours map[string]api.Guest

func (n neighbours) Networks() (map[string]api.Guest, error) { return n, nil }

func (n neighbours) ContextNames() (map[int]string, error) {
	names := map[int]string{}
	for _, g := range n {
		names[g.Context] = g.Name
	}
	return names, nil
}

func prefixes(words ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(words))
	for i, w := range words {
		list[i] = netip.MustParsePrefix(w)
	}
	return list
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
