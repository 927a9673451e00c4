package netctx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// The tests run in their own cgroups, and in their own network and mount namespaces,
// for which the test binary starts itself again. Guests run the same binary: started
// in a cgroup and a user namespace, they carry out the JSON requests that they read
// from standard input (machine_test.go).
const (
	roleVar = "NETCTX_TEST_ROLE"
	sandbox = "sandbox"
	guest   = "guest"
	loader  = "loader"
)

var (
	hostAddr  = netip.MustParsePrefix("10.77.0.1/24")
	wwwAddr   = netip.MustParsePrefix("10.77.0.10/24")
	mailAddr  = netip.MustParsePrefix("10.77.0.11/24")
	hostAddr6 = netip.MustParsePrefix("fd77::1/64")
	wwwAddr6  = netip.MustParsePrefix("fd77::10/64")
	mailAddr6 = netip.MustParsePrefix("fd77::11/64")
)

func TestMain(m *testing.M) {
	var code int
	switch os.Getenv(roleVar) {
	case guest:
		code = guestMain()
	case loader:
		code = loaderMain()
	case sandbox:
		if slices.Contains(os.Args, "-test.fuzzworker") { // set in the worker that is in the sandbox
			code = m.Run()
			break
		}
		if err := enterSandbox(); err != nil {
			fmt.Fprintln(os.Stderr, "make sandbox:", err)
			os.Exit(1)
		}
		code = m.Run()
	default:
		code = runSandbox()
	}
	os.Exit(code)
}

func runSandbox() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVar+"="+sandbox)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "run tests in namespaces of their own (needs root):", err)
		return 1
	}
	return 0
}

// enterSandbox adds the addresses of a host and two guests to the new namespaces.
func enterSandbox() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := unix.Mount("bpf", linux.BPFFS, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	for _, name := range []string{"eth0", "peer0"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, p := range []netip.Prefix{hostAddr, wwwAddr, mailAddr, hostAddr6, wwwAddr6, mailAddr6} {
		a, err := netlink.ParseAddr(p.String())
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(eth0, a); err != nil {
			return fmt.Errorf("add %s: %w", p, err)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
}

// cgroupRoot is where cgroup v2 is mounted.
func cgroupRoot(t testing.TB) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	t.Fatal("cgroup v2 is not mounted")
	return ""
}

var cgroups atomic.Int64

// newCgroup creates a cgroup for the test.
func newCgroup(t testing.TB) *os.File {
	t.Helper()
	dir := filepath.Join(cgroupRoot(t), fmt.Sprintf("vsnode-netctx-test-%d-%d", os.Getpid(), cgroups.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		// The last process may have been reaped and still be counted.
		waitFor(t, "the cgroup to be empty", func() bool { return unix.Rmdir(dir) == nil })
	})
	return f
}

// guestProcess starts a process in the cgroup and in its own user namespace.
func guestProcess(t testing.TB, cgroup *os.File, xid int) *machine {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+guest)
	cmd.Stderr = os.Stderr
	base := xid << 16
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: base, Size: 1 << 16}},
		GidMappings: []syscall.SysProcIDMap{{HostID: base, Size: 1 << 16}},
		Credential:  &syscall.Credential{},
		UseCgroupFD: true,
		CgroupFD:    int(cgroup.Fd()),
		Pdeathsig:   syscall.SIGKILL,
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop := func() {
		once.Do(func() {
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("guest %d: %v", xid, err)
			}
		})
	}
	t.Cleanup(stop)
	enc, dec := json.NewEncoder(in), json.NewDecoder(out)
	return &machine{t: t, name: fmt.Sprintf("guest %d", xid), pid: cmd.Process.Pid, do: func(c call) (r result) {
		if err := enc.Encode(c); err != nil {
			t.Fatalf("tell guest %d: %v", xid, err)
		}
		if err := dec.Decode(&r); err != nil {
			t.Fatalf("hear of guest %d: %v", xid, err)
		}
		return r
	}}
}

// newGuest starts a guest with a network context.
func newGuest(t testing.TB, s Spec) (*machine, *os.File) {
	t.Helper()
	cg := newCgroup(t)
	if err := Attach(cg, s); err != nil {
		t.Fatal(err)
	}
	if err := EnsureLoopback6(t.Context(), Loopback6(s.XID)); err != nil {
		t.Fatal(err)
	}
	// The kernel makes the address's route a moment later (addrconf_dad_work).
	waitFor(t, "a route to ::1 of the guest", func() bool {
		r, err := netlink.RouteGet(Loopback6(s.XID).AsSlice())
		return err == nil && len(r) == 1 && r[0].Table == unix.RT_TABLE_LOCAL
	})
	return guestProcess(t, cg, s.XID), cg
}

// host is the test process itself, in the same network.
func host(t testing.TB) *machine {
	return &machine{t: t, name: "host", pid: os.Getpid(), do: perform}
}

func guestMain() int {
	dec, enc := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var c call
		switch err := dec.Decode(&c); {
		case err == io.EOF:
			return 0
		case err != nil:
			fmt.Fprintln(os.Stderr, "guest:", err)
			return 1
		}
		if err := enc.Encode(perform(c)); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			return 1
		}
	}
}

// waitFor polls a condition that nothing announces.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for range 2000 {
		if cond() {
			return
		}
		unix.Poll(nil, 1)
	}
	t.Errorf("waited two seconds for %s", what)
}

// describe returns all that the kernel gets of programs and maps, but for what is printed in
// the verifier's log.
func describe(spec *ebpf.CollectionSpec) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		fmt.Fprintln(&b, name)
		for _, ins := range spec.Programs[name].Instructions {
			fmt.Fprintln(&b, ins, ins.Symbol(), ins.Reference())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		fmt.Fprintln(&b, name, spec.Maps[name])
	}
	return b.String()
}

// TestTablesAgreeWithObjects compares the tables of hooks with the C source.
func TestTablesAgreeWithObjects(t *testing.T) {
	agree := func(load func() (*ebpf.CollectionSpec, error), table []hook, object []byte, maps ...string) {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		if len(table) != len(spec.Programs) {
			t.Errorf("%d hooks in the table, %d programs in the object", len(table), len(spec.Programs))
		}
		for _, h := range table {
			switch p := spec.Programs[h.name]; {
			case p == nil:
				t.Errorf("%s is not in the object", h.name)
			case p.AttachType != h.at:
				t.Errorf("%s is for %v in the object, for %v in the table", h.name, p.AttachType, h.at)
			}
		}
		for _, name := range maps {
			if spec.Maps[name] == nil {
				t.Errorf("map %s is not in the object", name)
			}
		}
		if bytes.Contains(object, []byte("/work/")) || bytes.Contains(object, []byte("/home/")) {
			t.Error("the object holds a path of the machine that it was made on")
		}
	}
	whole, err := loadNetctx()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := netctxSpec()
	if err != nil {
		t.Fatal(err)
	}
	if describe(whole) != describe(packed) {
		t.Error("netctx.o.zst does not hold the programs of netctx_bpfel.o: go generate ./node/netctx")
	}
	agree(netctxSpec, append(hooks[:], steer), _NetctxBytes, settingsMap, trafficMap)
	agree(loadUnixsock, unixHooks[:], _UnixsockBytes)
	if bytes.Contains(_LsmBytes, []byte("/work/")) {
		t.Error("the object of the security module holds a path")
	}
}
