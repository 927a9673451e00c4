package lab

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/inventory"
)

// labDir is a directory for a lab on the machine's own filesystem: /tmp may be
// a tmpfs.
func labDir(t testing.TB) string {
	t.Helper()
	parent, err := os.MkdirTemp("/var/lib", "vsfleet-lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(parent); err != nil {
			t.Errorf("the lab left something: %v", err)
		}
	})
	return filepath.Join(parent, "lab")
}

func mustUp(t testing.TB, o Options) *Lab {
	t.Helper()
	o.Log = func(s string) { t.Log(s) }
	// Registered first, so that it also cleans up after an Up that fails.
	t.Cleanup(func() {
		if err := Down(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	lab, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

// login runs a command on a host, as Usage describes.
func login(t *testing.T, l *Lab, h Host, command string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-i", l.Identity,
		"-o", "UserKnownHostsFile="+l.KnownHosts, "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
		"root@"+h.Address.String(), command)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %s: %v\n%s", h.Name, command, err, errs.String())
	}
	return strings.TrimSpace(out.String())
}

func TestHostsAreWhatTheControllerExpects(t *testing.T) {
	before := takeSnapshot(t)
	l := mustUp(t, Options{Dir: labDir(t), Name: "hosts", Hosts: 2})
	lab1, lab2 := l.Hosts[0], l.Hosts[1]

	t.Run("each is itself and has a way out", func(t *testing.T) {
		for _, h := range l.Hosts {
			for command, want := range map[string]string{
				"hostname":                          h.Name,
				"cat /etc/hostname":                 h.Name,
				"cat /sys/class/net/eth0/operstate": "up",
				"cat /proc/1/comm":                  "exe",
				"cat /proc/sys/net/ipv4/ip_forward": "0",
				"id -u":                             "0",
				"stat -f -c %T / /sys/fs/cgroup /sys/fs/bpf /run /tmp /proc":    "overlayfs\ncgroup2fs\nbpf_fs\ntmpfs\ntmpfs\nproc",
				"cat /proc/self/cgroup | grep ^0:":                              "0::/init.scope",
				"ls -A /home; ls -A /root; ls -A /var/lib/vsfleet 2>&1 || true": ".ssh\nls: cannot access '/var/lib/vsfleet': No such file or directory",
				"test ! -e " + l.Dir + " && echo hidden":                        "hidden",
				"test -s /etc/resolv.conf && echo yes":                          "yes",
			} {
				if got := login(t, l, h, command); got != want {
					t.Errorf("%s: %s: got %q, want %q", h.Name, command, got, want)
				}
			}
			if got := login(t, l, h, "ip -4 -o addr show eth0; ip route"); !strings.Contains(got, h.Address.String()+"/24") ||
				!strings.Contains(got, "default via "+l.Subnet.Addr().Next().String()) {
				t.Errorf("%s: addresses and routes: %s", h.Name, got)
			}
		}
		if a, b := login(t, l, lab1, "cat /etc/machine-id"), login(t, l, lab2, "cat /etc/machine-id"); a == b || len(a) != 32 {
			t.Errorf("machine ids %q and %q", a, b)
		}
	})

	t.Run("the inventory names them", func(t *testing.T) {
		inv, err := inventory.Load(l.Inventory)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range inv.Hosts {
			if h.Name != l.Hosts[i].Name || h.Address != l.Hosts[i].Address.String() || h.Netdev != hostDevice ||
				h.SSH.User != "root" || h.SSH.Identity != l.Identity || h.SSH.KnownHosts != l.KnownHosts {
				t.Errorf("%+v", h)
			}
		}
		if len(inv.Hosts) != 2 {
			t.Errorf("%d hosts", len(inv.Hosts))
		}
	})

	t.Run("guests find real directories, nodes and mounts", func(t *testing.T) {
		for _, dir := range realDirs {
			got := login(t, l, lab1, "stat -f -c %T /"+dir.path+"; stat -c %a /"+dir.path+"; touch /"+dir.path+"/x && rm /"+dir.path+"/x")
			if want := "ext2/ext3\n" + strconv.FormatUint(uint64(dir.mode), 8); strings.HasPrefix(got, "overlay") || !strings.HasSuffix(got, want[len("ext2/ext3"):]) {
				t.Errorf("/%s: got %q", dir.path, got)
			}
		}
		login(t, l, lab1, `set -e
			mknod /var/lib/vservers/null c 1 3; echo x > /var/lib/vservers/null; rm /var/lib/vservers/null
			mkdir /mnt/t; mount -t tmpfs t /mnt/t; touch /mnt/t/x; umount /mnt/t; rmdir /mnt/t
			cd /var/lib/vservers; mkdir l u w m; echo low > l/f
			mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m; echo high > m/f; umount m; rm -r l u w m
			mkdir /sys/fs/cgroup/vservers; rmdir /sys/fs/cgroup/vservers
			mv /etc/apt /etc/apt2; mv /etc/apt2 /etc/apt
			script -qec 'test -t 0' /dev/null`)
	})

	t.Run("hosts reach one another", func(t *testing.T) {
		got := login(t, l, lab1, "exec 3<>/dev/tcp/"+lab2.Address.String()+"/22; head -c 8 <&3")
		if got != "SSH-2.0-" {
			t.Errorf("lab1 got %q from lab2", got)
		}
	})

	t.Run("what a host writes is its own", func(t *testing.T) {
		login(t, l, lab1, "echo lab1 > /etc/vsfleet-lab-test; rm /etc/debian_version; echo x > /var/lib/vservers/x; echo x > /run/x")
		if got := login(t, l, lab2, "ls /etc/vsfleet-lab-test /var/lib/vservers/x /run/x 2>/dev/null; ls /etc/debian_version"); got != "/etc/debian_version" {
			t.Errorf("lab2 sees %q", got)
		}
		if _, err := os.Stat("/etc/vsfleet-lab-test"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("this machine: %v", err)
		}
		if _, err := os.Stat("/etc/debian_version"); err != nil {
			t.Error(err)
		}
	})

	t.Run("a stranger's key opens nothing", func(t *testing.T) {
		key := filepath.Join(t.TempDir(), "key")
		if _, _, err := keyPair(key, "stranger"); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "UserKnownHostsFile="+l.KnownHosts, "root@"+lab1.Address.String(), "true").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Permission denied") {
			t.Errorf("got %v: %s", err, out)
		}
	})

	t.Run("Exec works without ssh", func(t *testing.T) {
		var out bytes.Buffer
		exit, err := l.Exec(t.Context(), "lab2", strings.NewReader("in"), &out, nil,
			"/bin/sh", "-c", "hostname; cat; readlink /proc/self/ns/cgroup /proc/1/ns/cgroup | uniq | wc -l; exit 7")
		if err != nil || exit != 7 || out.String() != "lab2\nin1\n" {
			t.Errorf("exit %d, %v, output %q", exit, err, out.String())
		}
	})

	t.Run("Exec ends what it runs when it is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		out, in, err := os.Pipe()
		must(t, err)
		go func() {
			if _, err := out.Read(make([]byte, 1)); err == nil {
				cancel()
			}
		}()
		if _, err := l.Exec(ctx, "lab2", nil, in, nil, "/bin/sh", "-c", "echo; exec sleep 1000"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		must(t, errors.Join(in.Close(), out.Close()))
		if got := login(t, l, lab2, "pgrep -x sleep || echo none"); got != "none" {
			t.Errorf("left in the host: %s", got)
		}
	})

	t.Run("mounts stay in the hosts", func(t *testing.T) {
		after, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if string(after) != before.mounts {
			t.Errorf("mountinfo changed:\n%s", cmp.Diff(before.mounts, string(after)))
		}
	})
}

func TestUpAgainRepairsAndGrows(t *testing.T) {
	o := Options{Dir: labDir(t), Name: "again", Hosts: 2}
	before := takeSnapshot(t)
	first := mustUp(t, o)
	var logged []string
	o.Log = func(s string) { logged = append(logged, s) }

	again, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || len(logged) > 0 {
		t.Errorf("Up again was not a no-op (%q):\n%s", logged, diff)
	}

	// What the first host has on its disk survives. A link that it puts where the
	// lab writes at each start is not followed.
	login(t, first, first.Hosts[0], "touch /var/lib/vservers/kept; touch /var/tmp/kept; ln -sf ../../../../../../../../etc/passwd /etc/hostname.new")
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	kill(t, first.Hosts[0].PID)
	down, err := Status(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if h := down.Hosts[0]; h.PID != 0 || h.SSH {
		t.Errorf("a killed host is seen as %+v", h)
	}

	o.Hosts = 3
	o.Log = func(s string) { t.Log(s) }
	repaired, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(repaired.Hosts) != 3 {
		t.Fatalf("hosts: %+v", repaired.Hosts)
	}
	for i, h := range repaired.Hosts {
		if h.PID == 0 || !h.SSH {
			t.Errorf("%+v", h)
		}
		if (i == 1) != (h.PID == again.Hosts[min(i, 1)].PID) {
			t.Errorf("only lab2 should have been left alone: %+v", h)
		}
	}
	login(t, repaired, repaired.Hosts[0], "ls /var/lib/vservers/kept /var/tmp/kept")
	if now, err := os.ReadFile("/etc/passwd"); err != nil || !bytes.Equal(now, passwd) {
		t.Errorf("/etc/passwd of this machine changed: %v", err)
	}

	if err := repaired.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	before.compare(t, o.Name)
	if err := repaired.Down(t.Context()); err != nil {
		t.Errorf("Down where there is no lab: %v", err)
	}
	before.compare(t, o.Name)
}

func TestDownWhileGuestsRun(t *testing.T) {
	o := Options{Dir: labDir(t), Name: "guests", Hosts: 1}
	before := takeSnapshot(t)
	l := mustUp(t, o)
	// As a guest does: namespaces within namespaces, a cgroup below the
	// host's, daemons that have left every session, files nobody can list.
	login(t, l, l.Hosts[0], `set -e
		mkdir -p /sys/fs/cgroup/vservers/www/deeper
		sh -c 'echo 0 > /sys/fs/cgroup/vservers/www/deeper/cgroup.procs
			exec setsid unshare -Urpmnf --mount-proc sh -c "trap : TERM; mount -t tmpfs x /mnt; while :; do sleep 100; done"' </dev/null >/dev/null 2>&1 &
		until grep -q 'populated 1' /sys/fs/cgroup/vservers/www/cgroup.events; do :; done
		cd /var/lib/vservers; mkdir -p a/b; touch a/b/c; ln -s / a/b/root; mkfifo a/pipe; chmod 0 a/b a`)
	l, err := Status(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if l.Hosts[0].Guests != 1 {
		t.Errorf("guests: %+v", l.Hosts[0])
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	before.compare(t, o.Name)
}

func TestTwoLabsSideBySide(t *testing.T) {
	before := takeSnapshot(t)
	a := mustUp(t, Options{Dir: labDir(t), Name: "sidea", Hosts: 1})
	b := mustUp(t, Options{Dir: labDir(t), Name: "sideb", Hosts: 1})
	if a.Subnet.Overlaps(b.Subnet) {
		t.Errorf("networks %s and %s", a.Subnet, b.Subnet)
	}
	if _, err := Up(t.Context(), Options{Dir: labDir(t), Name: "sidea"}); err == nil || !strings.Contains(err.Error(), a.Dir) {
		t.Errorf("the name of another lab was taken: %v", err)
	}
	for _, o := range []Options{{Dir: a.Dir, Name: "sidec"}, {Dir: a.Dir, Subnet: b.Subnet}, {Dir: filepath.Dir(a.Dir)}, {Dir: a.Dir, Hosts: 1000}} {
		if _, err := Up(t.Context(), o); err == nil {
			t.Errorf("Up(%+v) worked", o)
		}
	}
	for _, taken := range []string{b.Subnet.String(), netip.PrefixFrom(b.Subnet.Addr(), 20).Masked().String(), netip.PrefixFrom(b.Hosts[0].Address, 29).Masked().String()} {
		_, err := Up(t.Context(), Options{Dir: labDir(t), Name: "sidec", Subnet: netip.MustParsePrefix(taken)})
		if err == nil || !strings.Contains(err.Error(), taken+" is already used by the lab \"side") {
			t.Errorf("the network %s of other labs was taken: %v", taken, err)
		}
	}
	for _, row := range []struct {
		of *Lab
		ok bool
	}{{a, false}, {b, true}} {
		key, err := os.ReadFile(hostKeyPath(filepath.Join(row.of.Dir, hostsDir, "lab1")) + ".pub")
		must(t, err)
		if err := checkKey(t.Context(), b.Hosts[0].Address, key); (err == nil) != row.ok {
			t.Errorf("%s answers for lab1 of %s: %v", b.Hosts[0].Address, row.of.Name, err)
		}
	}
	if _, err := Up(t.Context(), Options{Dir: labDir(t), Name: "sidec", Hosts: 1000}); err == nil {
		t.Error("1000 hosts fit into a /24")
	}
	if got := listing(t, registryDir); strings.Contains(got, "sidec") {
		t.Errorf("a lab that was refused keeps its name: %s", got)
	}
	if err := a.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := readForward(t); got != "1" {
		t.Errorf("ip_forward is %s while a lab is up", got)
	}
	login(t, b, b.Hosts[0], "true")
	if err := b.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	before.compare(t, "sidea")
	before.compare(t, "sideb")
}

// kill ends a host by its process 1 and waits until it is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err == nil {
			return
		}
		if err != unix.EINTR {
			t.Fatal(err)
		}
	}
}

func BenchmarkUpThreeHosts(b *testing.B) {
	o := Options{Dir: labDir(b), Name: "bench", Hosts: 3}
	for b.Loop() {
		if _, err := Up(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := Down(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
