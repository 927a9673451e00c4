package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/procctx"
)

func TestMain(m *testing.M) {
	if os.Args[0] == notifyingInit {
		beNotifyingInit()
		return
	}
	if os.Args[0] == bomb {
		beBomb()
	}
	if call := os.Getenv(asNode); call != "" {
		if err := beNode(strings.Fields(call)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(onHost) == "" {
		// as with an installed vsnode
		if err := os.Chmod("/proc/self/exe", 0o700); err != nil {
			panic(err)
		}
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), onHost+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP}
		err := inOwnCgroup(cmd.Run)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		if err != nil {
			panic(err)
		}
		return
	}
	if err := makeHost(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// inOwnCgroup runs f in a cgroup of its own, which becomes the root of a cgroup
// namespace: this host does not see the guests of other tests.
func inOwnCgroup(f func() error) (err error) {
	mount, err := cgroup.Mount()
	if err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	_, old, _ := strings.Cut(string(b), "0::")
	old, _, _ = strings.Cut(old, "\n")
	dir := fmt.Sprintf("%s/vsfleet-test-guest-%d", mount, os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	have, err := os.ReadFile(mount + "/cgroup.controllers")
	if err != nil {
		return err
	}
	handed := mount + "/cgroup.subtree_control"
	on, err := os.ReadFile(handed)
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(have)) {
		if slices.Contains(strings.Fields(string(on)), c) {
			continue
		}
		os.WriteFile(handed, []byte("+"+c), 0)       // fails for a controller that is not available, which then limits nothing
		defer os.WriteFile(handed, []byte("-"+c), 0) // fails if another test has passed it on
	}
	move := func(to string) error {
		return os.WriteFile(to+"/cgroup.procs", []byte(fmt.Sprint(os.Getpid())), 0)
	}
	if err := move(dir); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, move(mount+old), cgroup.Dir(dir).Remove())
	}()
	return f()
}

func makeHost() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	mount, err := cgroup.Mount()
	if err != nil {
		return err
	}
	if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil { // a filesystem cannot be mounted twice in one place
		return err
	}
	if err := unix.Mount("cgroup2", mount, "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", mount, err)
	}
	// Move this process and its parent out of the root: a cgroup with processes in it
	// could not pass on its controllers.
	if err := os.Mkdir(mount+"/tests", 0o755); err != nil {
		return err
	}
	pids, err := os.ReadFile(mount + "/cgroup.procs")
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(pids)) {
		if err := os.WriteFile(mount+"/tests/cgroup.procs", []byte(pid), 0); err != nil {
			return err
		}
	}
	for dir, fstype := range map[string]string{"/run": "tmpfs", "/sys/fs/bpf": "bpf"} {
		if err := unix.Mount(fstype, dir, fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	for _, name := range []string{"lo", "eth0", "peer0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	addr, err := netlink.ParseAddr(hostAddress.String())
	if err != nil {
		return err
	}
	return netlink.AddrAdd(veth, addr)
}

// host returns a host without guests, whose only image is a busybox.
func host(t testing.TB) *Host {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "vsfleet-test-")
	if err != nil {
		t.Fatal(err)
	}
	h := hostAt(dir)
	t.Cleanup(func() {
		for _, err := range []error{shutDown(h), os.RemoveAll(dir)} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("needs apt-get install busybox-static")
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	tree := dir + "/tree"
	for _, d := range []string{"bin", "proc", "sys", "dev", "run", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(tree+"/bin/busybox", b, 0o755), os.WriteFile(tree+"/etc/passwd", []byte("root:x:0:0::/:/bin/sh\nwww:x:33:33::/:/bin/sh\n"), 0o644), os.WriteFile(tree+"/etc/group", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "sleep", "cat", "id", "hostname", "nc", "httpd", "kill", "trap", "grep", "ls"} {
		if err := os.Symlink("busybox", filepath.Join(tree, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func hostAt(dir string) *Host {
	return &Host{
		Paths: Paths{ConfigDir: dir + "/etc", DataDir: dir + "/data", RunDir: "/run/vservers", LogDir: dir + "/log"},
		Tree:  func(context.Context, string, string) (string, error) { return dir + "/tree", nil },
	}
}

func shutDown(h *Host) error {
	names, err := h.allNames()
	for _, name := range names {
		err = errors.Join(err, h.Delete(context.Background(), name))
	}
	return err
}

// inMode returns a guest for each network mode.
func inMode(mode api.Mode, name string, xid int, command ...string) api.Guest {
	g := api.Guest{Name: name, Context: xid, Image: "sha256:test", Network: api.Network{Mode: mode}, Init: api.Init{Style: "command", Command: command}}
	switch mode {
	case api.ModeShared:
		g.Network.Addresses = []netip.Prefix{hostAddress}
		g.Network.Ports, _ = parseAll([]string{"8080"}, port.Parse)
	case api.ModeOwn:
		g.Network.Addresses = []netip.Prefix{netip.MustParsePrefix("198.51.100.77/24")}
		g.Network.Dev = "eth0"
	case api.ModeNAT:
		g.Network.Forwards, _ = parseAll([]string{"9090:8080"}, port.ParseForward)
	}
	return g
}

// traces returns what a guest could leave on its host.
func traces(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	// Other tests may change addresses meanwhile: the kernel then reports that its dump
	// is inconsistent.
	links, err := linux.Dump(netlink.LinkList)
	must(t, err)
	for _, l := range links {
		fmt.Fprintf(&b, "link %s;", l.Attrs().Name)
	}
	addrs, err := linux.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	must(t, err)
	for _, a := range addrs {
		fmt.Fprintf(&b, "address %s;", a.IPNet)
	}
	mount, err := cgroup.Mount()
	must(t, err)
	cgroups, err := filepath.Glob(mount + "/vservers/*/cgroup.procs")
	must(t, err)
	for _, c := range cgroups {
		// Tests of other packages may run at the same time.
		if name := filepath.Base(filepath.Dir(c)); !strings.HasPrefix(name, "test-") {
			fmt.Fprintf(&b, "cgroup %s;", name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	fmt.Fprintf(&b, "%d mounts;", bytes.Count(mounts, []byte("\n")))
	states, err := filepath.Glob("/run/vservers/.*.state*")
	must(t, err)
	fmt.Fprint(&b, states)
	return b.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fetch gets /passwd over HTTP, waiting for the server to listen.
func fetch(t *testing.T, address string) string {
	t.Helper()
	return fetchOver(t, address, func() (net.Conn, error) { return net.DialTimeout("tcp", address, time.Second) })
}

// fetchOver is fetch over connections that dial makes.
func fetchOver(t *testing.T, address string, dial func() (net.Conn, error)) string {
	t.Helper()
	var last error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		c, err := dial()
		if err != nil {
			last = err
			unix.Poll(nil, 5)
			continue
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /passwd HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(c)
		if err == nil {
			return string(b)
		}
		last = err
	}
	t.Fatalf("nothing answers on %s: %v", address, last)
	return ""
}

func run(t *testing.T, h *Host, name string, argv ...string) (string, int) {
	t.Helper()
	return runAs(t, h, name, procctx.User{}, argv...)
}

func runAs(t *testing.T, h *Host, name string, u procctx.User, argv ...string) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	p, err := h.Exec(context.Background(), name, Program{Argv: argv, User: u, Stdin: null, Stdout: w, Stderr: w})
	w.Close()
	must(t, err)
	b, err := io.ReadAll(r)
	must(t, err)
	code, err := p.Wait()
	must(t, err)
	return strings.TrimSpace(string(b)), code
}
