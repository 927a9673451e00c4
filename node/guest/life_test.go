package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/probe"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// The tests of life run on a host of their own: the test binary again, in new
// network, mount and cgroup namespaces, with an eth0 that has 198.51.100.1/24.
const (
	onHost = "VSFLEET_TEST_HOST"
	asNode = "VSFLEET_TEST_NODE" // "start NAME DIR": be a vsnode that can be killed
	// execLine is for a shell in the guest, with "exec NAME DIR".
	execLine = "VSFLEET_TEST_EXEC"
)

var hostAddress = netip.MustParsePrefix("198.51.100.1/24")

func TestMain(m *testing.M) {
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
	for _, name := range []string{"sh", "true", "sleep", "cat", "id", "hostname", "nc", "httpd", "kill", "trap", "grep"} {
		if err := os.Symlink("busybox", filepath.Join(tree, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func hostAt(dir string) *Host {
	return &Host{
		Paths: Paths{ConfigDir: dir + "/etc", DataDir: dir + "/data", RunDir: "/run/vservers", LogDir: dir + "/log"},
		Tree:  func(string) (string, error) { return dir + "/tree", nil },
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

func TestLifeOfAGuest(t *testing.T) {
	for _, row := range []struct {
		mode    api.Mode
		address string // where its port 8080 is reached
	}{
		{api.ModeShared, "198.51.100.1:8080"},
		{api.ModeOwn, "198.51.100.77:8080"},
		{api.ModeNAT, "198.51.100.1:9090"},
	} {
		t.Run(string(row.mode), func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			before := traces(t)
			g := inMode(row.mode, "life-"+string(row.mode), 100, "httpd", "-f", "-p", "8080", "-h", "/etc")
			must(t, h.Create(ctx, g))
			if err := h.Create(ctx, g); err == nil || !strings.Contains(err.Error(), "there already") {
				t.Errorf("created twice: %v", err)
			}
			if st, err := h.State(g.Name); err != nil || st.Status != api.Stopped {
				t.Errorf("state %+v, %v", st, err)
			}
			must(t, h.Start(ctx, g.Name, Options{}))
			if err := h.Start(ctx, g.Name, Options{}); !errors.Is(err, ErrRunning) {
				t.Errorf("started twice: %v", err)
			}
			st, err := h.State(g.Name)
			if err != nil || st.Status != api.Running || st.Processes != 1 || st.InitPID == 0 || st.Started.IsZero() {
				t.Errorf("state %+v, %v", st, err)
			}
			if got := fetch(t, row.address); !strings.Contains(got, "root:x:0:0") {
				t.Errorf("from %s came %q", row.address, got)
			}
			if got, code := run(t, h, g.Name, "hostname"); got != g.Name || code != 0 {
				t.Errorf("hostname %q, exit %d", got, code)
			}
			if got, _ := run(t, h, g.Name, "cat", "/etc/hosts"); !strings.Contains(got, g.Name) {
				t.Errorf("/etc/hosts does not know the guest: %q", got)
			}
			if outcome, err := h.Stop(ctx, g.Name); err != nil || outcome != api.Changed {
				t.Errorf("stop: %v, %v", outcome, err)
			}
			if outcome, err := h.Stop(ctx, g.Name); err != nil || outcome != api.Unchanged {
				t.Errorf("stopped twice: %v, %v", outcome, err)
			}
			if _, err := h.Exec(context.Background(), g.Name, Program{Argv: []string{"true"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}); !errors.Is(err, ErrNotRunning) {
				t.Errorf("entered a stopped guest: %v", err)
			}
			must(t, h.Delete(ctx, g.Name))
			if err := h.Delete(ctx, g.Name); !errors.Is(err, ErrNoGuest) {
				t.Errorf("deleted twice: %v", err)
			}
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

func TestGuestThatEndsByItselfIsCleanedUp(t *testing.T) {
	ctx := context.Background()
	for _, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			before := traces(t)
			g := inMode(mode, "short-"+string(mode), 101, "true")
			must(t, h.Create(ctx, g))
			must(t, h.Start(ctx, g.Name, Options{}))
			_, cg, err := h.cgroup(g.Name)
			must(t, err)
			must(t, cg.WaitEmpty(ctx))
			must(t, h.Sweep(ctx))
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

func TestFailedStartIsUndone(t *testing.T) {
	ctx := context.Background()
	for _, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			g := inMode(mode, "fails-"+string(mode), 102, "/bin/nosuch")
			must(t, h.Create(ctx, g))
			before := traces(t)
			err := h.Start(ctx, g.Name, Options{})
			if err == nil || !strings.Contains(err.Error(), "no such file") {
				t.Errorf("error %v", err)
			}
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

// If the host lacks idmapped mounts where guests' data is, the error of the start names
// the row of check.
func TestFailedStartNamesWhatTheHostLacks(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	must(t, os.MkdirAll(h.DataDir, 0o755))
	must(t, unix.Mount("ramfs", h.DataDir, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(h.DataDir, unix.MNT_DETACH)) })
	g := inMode(api.ModeNAT, "lacking", 103, "/bin/sleep", "1000")
	must(t, h.Create(ctx, g))
	before := traces(t)
	err := h.Start(ctx, g.Name, Options{})
	const want = "; this host lacks idmapped mounts: idmap "
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "put /var/lib/vservers on ext4") || !errors.Is(err, probe.ErrMissing) {
		t.Errorf("error %v, want %q in it", err, want)
	}
	if after := traces(t); after != before {
		t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
	}
	must(t, h.Delete(ctx, g.Name))
}

// A vsnode is killed at many points of a start and of a stop; repeating the command
// finishes it, and a delete leaves nothing.
func TestKilledAnywhereAndCalledAgain(t *testing.T) {
	for _, mode := range []api.Mode{api.ModeOwn, api.ModeNAT} {
		for _, verb := range []string{"start", "stop"} {
			t.Run(verb+" "+string(mode), func(t *testing.T) {
				ctx := context.Background()
				h := host(t)
				g := inMode(mode, "killed-"+string(mode), 105, "sleep", "1000")
				before := traces(t)
				must(t, h.Create(ctx, g))
				must(t, h.Start(ctx, g.Name, Options{})) // the BPF programs are loaded from here on
				begun := time.Now()
				_, err := h.Stop(ctx, g.Name)
				must(t, err)
				must(t, h.Start(ctx, g.Name, Options{}))
				// Points all over a run that takes about half of that, also on a slow
				// machine.
				tries := 40
				if testing.Short() {
					tries = 6
				}
				step := time.Since(begun) / time.Duration(tries)
				for i := range tries {
					if verb == "start" {
						_, err := h.Stop(ctx, g.Name)
						must(t, err)
					} else if err := h.Start(ctx, g.Name, Options{}); err != nil && !errors.Is(err, ErrRunning) {
						t.Fatal(err)
					}
					delay := time.Duration(i)*step + rand.N(step)
					killAfter(t, delay, verb, g.Name, filepath.Dir(h.DataDir))
					if verb == "start" {
						err = h.Start(ctx, g.Name, Options{})
					} else {
						_, err = h.Stop(ctx, g.Name)
					}
					if err != nil && !errors.Is(err, ErrRunning) {
						t.Fatalf("killed after %s, then %s again: %v", delay, verb, err)
					}
					if on, err := h.Running(g.Name); err != nil || on != (verb == "start") {
						t.Fatalf("killed after %s: running is %t, %v", delay, on, err)
					}
				}
				must(t, h.Delete(ctx, g.Name))
				if after := traces(t); after != before {
					t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
				}
			})
		}
	}
}

// killAfter runs a vsnode of its own and kills it.
func killAfter(t *testing.T, delay time.Duration, verb, name, dir string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asNode+"="+strings.Join([]string{verb, name, dir}, " "))
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	timer := time.AfterFunc(delay, func() { cmd.Process.Kill() })
	defer timer.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
}

func beNode(call []string) error {
	h := hostAt(call[2])
	if call[0] == "start" {
		return h.Start(context.Background(), call[1], Options{})
	}
	if call[0] == "exec" {
		code, err := h.Run(context.Background(), call[1], Program{Argv: []string{"sh", "-c", os.Getenv(execLine)}})
		if err == nil && code != 0 {
			err = fmt.Errorf("exit status %d", code)
		}
		return err
	}
	_, err := h.Stop(context.Background(), call[1])
	return err
}

func TestSuexecRunsAsTheUser(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeNAT, "users", 106, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	u, err := h.User(g.Name, "www")
	must(t, err)
	if got, _ := runAs(t, h, g.Name, u, "id", "-u"); got != "33" {
		t.Errorf("id is %q", got)
	}
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
	var last error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		c, err := net.DialTimeout("tcp", address, time.Second)
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

// The first process of each is forked while the others hold locks and ends of pipes:
// its copies of these must not outlive its vsnode's.
func TestManyStartAtOnce(t *testing.T) {
	for _, mode := range []api.Mode{api.ModeShared, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var group errgroup.Group
			for i := range 8 {
				g := inMode(mode, fmt.Sprintf("many-%s-%d", mode, i), 120+i, "sleep", "1000")
				g.Network.Ports, g.Network.Forwards = nil, nil
				must(t, h.Create(ctx, g))
				group.Go(func() error {
					for range 3 {
						if err := h.Start(ctx, g.Name, Options{}); err != nil {
							return err
						}
						if _, err := h.Stop(ctx, g.Name); err != nil {
							return err
						}
					}
					return nil
				})
			}
			must(t, group.Wait())
		})
	}
}
