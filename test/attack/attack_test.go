package main

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const asProgram = "ATTACK_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestNothingIsRefusedWithoutAGuest is the control of every end-to-end test
// that runs this program: root on a host reaches what a guest must not. The
// network and the mounts are new ones.
func TestNothingIsRefusedWithoutAGuest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("secret of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The row about descriptors needs a visible process that holds a directory open,
	// which not every machine has.
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	name := "attack-test-" + strconv.Itoa(os.Getpid())
	cmd := exec.Command("/proc/self/exe", "--mode=own", "--other=127.7.7.7", "--own=127.0.0.1", "--host=127.8.8.8",
		"--loop=1", "--loop-udp=1", "--wildcard=1", "--metadata=1", "--other-loop=127.0.125.1:1", "--other-loop6=[fd76:7365:7276:6572::7d]:1", "--private=100.64.0.127:1",
		"--abstract="+name, "--pid="+strconv.Itoa(os.Getpid()), "--file="+file, "--secret=secret of the host", "--locked="+t.TempDir())
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("exit status %d, %v", cmd.ProcessState.ExitCode(), err)
	}
	got := map[string]string{}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		rest, ok := strings.CutPrefix(sc.Text(), "attack ")
		rowName, verdict, ok2 := strings.Cut(rest, ": ")
		// Addresses in names have no space after their colons.
		if !ok || !ok2 {
			t.Errorf("line %q", sc.Text())
		}
		got[rowName], _, _ = strings.Cut(verdict, " ")
	}
	// Only where there are such hierarchies.
	if table, err := os.ReadFile("/proc/self/cgroup"); err != nil {
		t.Fatal(err)
	} else if v1 := regexp.MustCompile(`(?m)^[1-9]`).Match(table); v1 != (got["change-cgroup-v1"] == "REACHED") {
		t.Errorf("change-cgroup-v1: %q, and cgroup v1 is there: %v", got["change-cgroup-v1"], v1)
	}
	for _, want := range []string{
		"bind-freebind", "bind-multicast", "hold-tcp-ports", "hold-udp-ports", "raw-socket", "raw-socket-ipv6", "packet-socket", "sock-diag", "forge-uevent", "forge-uevent-to-one", "udp-lite", "mptcp",
		"raw-socket-in-new-namespaces", "new-user-namespace", "new-network-namespace", "io-uring", "change-addresses",
		"signal-host-process", "see-host-process", "open-host-process", "trace-host-process", "read-host-process", "ask-host-process-priority",
		"type-into-terminal", "type-into-terminal-high-bits",
		"read-host-file", "read-host-file-above-root", "read-host-file-through-process",
		"read-host-file-through-descriptors", "read-host-file-through-cwd", "leave-chroot", "see-host-mounts", "open-by-handle",
		"mount-debugfs", "mount-devtmpfs", "lock-host-device",
		"lift-nodev-of-root", "remount-nodev-of-root", "lift-read-only-of-sys", "remount-read-only-of-sys", "lift-read-only-of-bind", "remount-read-only-of-bind", "write-into-read-only-bind", "mount-sysfs-writable", "write-proc-sys-kernel-core_pattern", "write-proc-sys-vm-drop_caches",
		"swap-on", "account-processes", "keyring", "request-key", "perf-events", "bpf-map", "bpf-detach", "set-clock",
	} {
		if got[want] != "REACHED" {
			t.Errorf("%s: %q, want REACHED", want, got[want])
		}
	}
}

// TestServicesOfTheHostAreReachedWithoutAGuest does the same for rows about
// services, in this network, where the services are.
func TestServicesOfTheHostAreReachedWithoutAGuest(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo(b[:n], from)
		}
	}()
	name := "attack-test-" + strconv.Itoa(os.Getpid())
	a, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	o := &outside{mode: "own", loop: l.Addr().(*net.TCPAddr).Port, loopUDP: u.LocalAddr().(*net.UDPAddr).Port, abstract: name}
	o.wildcard = o.loop
	o.otherLoop6 = netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), uint16(o.loop))
	o.private = netip.AddrPortFrom(localhost, uint16(o.loop))
	want := map[string]bool{
		"connect-host-127.0.0.1": true, "connect-host-0.0.0.0": true, "connect-host-::ffff:127.0.0.1": true, "connect-host-fastopen": true,
		"echo-host-127.0.0.1": true, "echo-host-::ffff:127.0.0.1": true, "connect-host-wildcard-127.0.0.1": true, "abstract-stream": true,
		"connect-other-localhost-ipv6": true, "connect-private": true, "connect-private-as-ipv6": true, "send-private": true,
	}
	for _, r := range append(networkRows(o), socketRows(o)...) {
		if !want[r.name] {
			continue
		}
		delete(want, r.name)
		if reached, detail := r.attempt(o); !reached {
			t.Errorf("%s: %s", r.name, detail)
		}
	}
	for name := range want {
		t.Errorf("no row %s", name)
	}
}

func TestWrongUsageIsReported(t *testing.T) {
	for _, args := range [][]string{{}, {"--mode=bridge"}, {"--mode=own", "--own=x"}, {"--mode=nat", "--other-loop=x"}, {"--mode=nat", "--private=x"}, {"--nothing"}} {
		if code := run(args); code != 2 {
			t.Errorf("%q: exit status %d", args, code)
		}
	}
}
