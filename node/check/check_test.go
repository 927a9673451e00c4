package check

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/netctx"
	"github.com/vsfleet/vsfleet/node/probe"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	cgroup1Mounts = `25 30 0:23 / /sys rw,relatime shared:7 - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
`
	hybridMounts  = cgroup1Mounts + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	unifiedMounts = "35 24 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o755} }

// Other hosts: the rows that are read from files.
func TestOtherHosts(t *testing.T) {
	type want struct {
		verdict      api.Verdict
		detail, cure string // substrings
	}
	for _, c := range []struct {
		name    string
		release string
		files   fstest.MapFS
		feature string
		want    want
	}{
		{"Debian 12", "6.1.0-50-amd64", nil, "kernel", want{api.Yes, "6.1.0", ""}},
		{"Debian 11", "5.10.0-28-amd64", nil, "kernel", want{api.No, "5.10.0-28-amd64 is older than 6.1", "newer kernel"}},
		{"a release candidate", "7.0-rc1", nil, "kernel", want{api.Yes, "", ""}},
		{"no kernel that we know", "GNU", nil, "kernel", want{api.Unknown, `"GNU"`, ""}},

		{"cgroup v1 only", "", fstest.MapFS{"proc/self/mountinfo": file(cgroup1Mounts)},
			"cgroup v2", want{api.No, "only cgroup v1", "systemd.unified_cgroup_hierarchy=1"}},
		{"no cgroups at all", "", fstest.MapFS{"proc/self/mountinfo": file("")},
			"cgroup v2", want{api.No, "not mounted", "mount -t cgroup2 none /sys/fs/cgroup"}},
		{"a hybrid host", "", fstest.MapFS{"proc/self/mountinfo": file(hybridMounts)},
			"cgroup v2", want{api.Yes, "/sys/fs/cgroup/unified, beside cgroup v1", ""}},
		{"cgroup v2 only", "", fstest.MapFS{"proc/self/mountinfo": file(unifiedMounts)},
			"cgroup v2", want{api.Yes, "/sys/fs/cgroup", ""}},
		{"another cgroup v2 before the usual one", "", fstest.MapFS{"proc/self/mountinfo": file("50 24 0:30 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n" + unifiedMounts)},
			"cgroup v2", want{api.Yes, "/sys/fs/cgroup", ""}},
		{"/proc that cannot be read", "", nil, "cgroup v2", want{api.Unknown, "mountinfo", ""}},

		{"all controllers", "", fstest.MapFS{"proc/self/mountinfo": file(unifiedMounts),
			"sys/fs/cgroup/cgroup.controllers": file("cpuset cpu io memory pids\n")},
			"cgroup controllers", want{api.Yes, "cpu, memory, pids", ""}},
		{"controllers on a cgroup v1 that is mounted elsewhere", "", fstest.MapFS{"proc/self/mountinfo": file(unifiedMounts),
			"proc/cgroups":                     file("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t4\t19\t1\npids\t0\t1\t1\n"),
			"sys/fs/cgroup/cgroup.controllers": file("pids\n")},
			"cgroup controllers", want{api.No, "cpu is on cgroup v1, memory is on cgroup v1", "cgroup_no_v1=all"}},
		{"controllers on cgroup v1", "", fstest.MapFS{"proc/self/mountinfo": file(hybridMounts),
			"sys/fs/cgroup/unified/cgroup.controllers": file("\n")},
			"cgroup controllers", want{api.No, "cpu is on cgroup v1, memory is on cgroup v1, pids is on cgroup v1", "cgroup_no_v1=all"}},
		{"no memory controller", "", fstest.MapFS{"proc/self/mountinfo": file(unifiedMounts),
			"sys/fs/cgroup/cgroup.controllers": file("cpu pids\n")},
			"cgroup controllers", want{api.No, "memory is not in the kernel", "cgroup_disable"}},
		{"limits without cgroup v2", "", fstest.MapFS{"proc/self/mountinfo": file(cgroup1Mounts)},
			"cgroup controllers", want{api.No, "cgroup v2 is not mounted", ""}},
		{"cgroup.kill without cgroup v2", "", fstest.MapFS{"proc/self/mountinfo": file(cgroup1Mounts)},
			"cgroup.kill", want{api.Unknown, "cgroup v2 is not mounted", ""}},

		{"user namespaces switched off", "", fstest.MapFS{"proc/sys/user/max_user_namespaces": file("0\n")},
			"user namespaces", want{api.No, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces"}},
		{"Debian's switch", "", fstest.MapFS{"proc/sys/kernel/unprivileged_userns_clone": file("0\n")},
			"nested user namespaces", want{api.No, "is 0", "kernel.unprivileged_userns_clone=1"}},
		{"Ubuntu's AppArmor", "", fstest.MapFS{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": file("1\n")},
			"nested user namespaces", want{api.No, "is 1", "kernel.apparmor_restrict_unprivileged_userns=0"}},

		{"bpffs not mounted", "", fstest.MapFS{"proc/self/mountinfo": file(""), "proc/filesystems": file("nodev\tbpf\n\text4\n")},
			"bpffs", want{api.Yes, "not mounted", ""}},
		{"no BPF in the kernel", "", fstest.MapFS{"proc/self/mountinfo": file(""), "proc/filesystems": file("\text4\n")},
			"bpffs", want{api.No, "", "CONFIG_BPF_SYSCALL"}},

		{"ping for nobody, as the kernel has it", "", fstest.MapFS{"proc/sys/net/ipv4/ping_group_range": file("1\t0\n")},
			"ping", want{api.No, "1 0", `"0 2147483647"`}},
		{"ping for all, as systemd sets it", "", fstest.MapFS{"proc/sys/net/ipv4/ping_group_range": file("0\t2147483647\n")},
			"ping", want{api.Yes, "contexts up to 32767", ""}},
		{"ping, unreadable", "", fstest.MapFS{"proc/sys/net/ipv4/ping_group_range": file("all\n")},
			"ping", want{api.Unknown, "all", ""}},

		{"a stock Debian has room for many guests", "", fstest.MapFS{
			"proc/sys/fs/inotify/max_user_instances": file("128\n"),
			"proc/sys/fs/inotify/max_user_watches":   file("29000\n"),
			"proc/sys/kernel/pid_max":                file("4194304\n"),
			"proc/sys/kernel/threads-max":            file("63000\n"),
			"proc/sys/kernel/pty/max":                file("4096\n")},
			"room for many guests", want{api.Yes, "63000 processes and 4096 terminals for all, 128 inotify instances for each guest", ""}},
		{"few process ids and inotify instances", "", fstest.MapFS{
			"proc/sys/fs/inotify/max_user_instances": file("64\n"),
			"proc/sys/fs/inotify/max_user_watches":   file("192536\n"),
			"proc/sys/kernel/pid_max":                file("32768\n"),
			"proc/sys/kernel/threads-max":            file("63000\n"),
			"proc/sys/kernel/pty/max":                file("4096\n")},
			"room for many guests", want{api.No, "kernel.pid_max is 32768, fs.inotify.max_user_instances is 64", "sysctl -w kernel.pid_max=4194304 fs.inotify.max_user_instances=1024"}},

		{"Debian 12's kernel", "6.1.0-50-amd64", fstest.MapFS{"proc/self/ns/time_for_children": file("")},
			"time namespaces", want{api.No, "too late", "kernel 6.3"}},
		{"a newer kernel", "6.12.0", fstest.MapFS{"proc/self/ns/time_for_children": file("")}, "time namespaces", want{api.Yes, "", ""}},
		{"a kernel without time namespaces", "6.12.0", fstest.MapFS{}, "time namespaces", want{api.No, "time_for_children", "CONFIG_TIME_NS"}},

		{"no users with ids of their own", "", fstest.MapFS{}, "ids of guests", want{api.Yes, "", ""}},
		{"Debian's first user meets no guest", "", fstest.MapFS{"etc/subuid": file("alice:100000:65536\n"), "etc/subgid": file("alice:100000:65536\n")},
			"ids of guests", want{api.Yes, "alice's ids are those of context 2", ""}},
		{"Debian's first user meets guest 2", "", fstest.MapFS{"etc/subuid": file("alice:100000:65536\n"), "etc/vservers/www/context": file("2\n")},
			"ids of guests", want{api.No, "alice has ids of guest www (context 2)", "choose other contexts"}},
		{"a directory service's range", "", fstest.MapFS{"etc/subuid": file("bob:3000000000:200000000\n"), "etc/vservers/.defaults/x": file("")},
			"ids of guests", want{api.Yes, "context 45776 to 48828", ""}},
		{"a machine of systemd-nspawn -U that runs", "", fstest.MapFS{"run/systemd/nspawn-uid/20054016": file(""), "etc/vservers/www/context": file("306\n")},
			"ids of guests", want{api.No, "a machine of systemd-nspawn has ids of guest www (context 306)", "28672 to 32765"}},
		{"a machine's tree that was shifted", "", fstest.MapFS{
			"var/lib/machines/build":   {Mode: 0o755 | os.ModeDir, Sys: &syscall.Stat_t{Uid: 306 << 16}},
			"etc/vservers/www/context": file("306\n")},
			"ids of guests", want{api.No, "machine build of systemd-nspawn has ids of guest www (context 306)", ""}},
		{"machines that meet no guest", "", fstest.MapFS{"run/systemd/nspawn-uid/20054016": file(""), "etc/vservers/www/context": file("28672\n")},
			"ids of guests", want{api.Yes, "", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.files == nil {
				c.files = fstest.MapFS{}
			}
			s := &probe.System{Files: c.files, Release: c.release, Data: t.TempDir()}
			check, err := run(t.Context(), s, listeners())
			if err != nil {
				t.Fatal(err)
			}
			got := row(t, check, c.feature)
			if got.Verdict != c.want.verdict || !strings.Contains(got.Detail, c.want.detail) || !strings.Contains(got.Cure, c.want.cure) {
				t.Errorf("got %q, detail %q, cure %q; want %+v", got.Verdict, got.Detail, got.Cure, c.want)
			}
			if (got.Verdict == api.Yes) != (got.Lost == "") {
				t.Errorf("verdict %q, lost %q", got.Verdict, got.Lost)
			}
		})
	}
}

// listeners returns a findListeners for a host with these listeners.
func listeners(list ...netctx.Listener) findListeners {
	return func(context.Context) ([]netctx.Listener, error) { return list, nil }
}

func TestServicesOnAllAddressesAreNamedWithTheirPrograms(t *testing.T) {
	on := func(process string, pid int, at string, proto port.Proto) netctx.Listener {
		return netctx.Listener{Process: process, PID: pid, Addr: netip.MustParseAddrPort(at), Proto: proto}
	}
	for _, c := range []struct {
		name         string
		found        []netctx.Listener
		verdict      api.Verdict
		detail, cure string
	}{
		{"no listener", nil, api.Yes, "", ""},
		{"the sshd pitfall", []netctx.Listener{on("sshd", 812, "0.0.0.0:22", port.TCP), on("sshd", 812, "[::]:22", port.TCP)},
			api.No, "sshd listens on 0.0.0.0:22 [::]:22", "write ListenAddress with the host's own address into /etc/ssh/sshd_config"},
		{"systemd listens for sshd", []netctx.Listener{on("systemd", 1, "0.0.0.0:22", port.TCP)},
			api.No, "systemd listens on 0.0.0.0:22", "write ListenStream= with the host's own address into the socket units (systemctl list-sockets)"},
		{"a container's published port", []netctx.Listener{on("docker-proxy", 9, "0.0.0.0:8090", port.TCP)},
			api.No, "docker-proxy listens on 0.0.0.0:8090", "publish ports of containers at the host's own address (docker run -p ADDRESS:PORT:PORT, or ip in /etc/docker/daemon.json)"},
		{"a listener that cannot be seen", []netctx.Listener{on("", 0, "0.0.0.0:2024", port.TCP)},
			api.No, "a process out of sight listens on 0.0.0.0:2024", "give a process out of sight an address of the host to listen on"},
		{"two programs, one on UDP", []netctx.Listener{on("sshd", 812, "0.0.0.0:22", port.TCP), on("dnsmasq", 9, "0.0.0.0:53", port.TCP), on("dnsmasq", 9, "0.0.0.0:53", port.UDP)},
			api.No, "sshd listens on 0.0.0.0:22; dnsmasq listens on 0.0.0.0:53 0.0.0.0:53/udp", "into /etc/ssh/sshd_config; give dnsmasq an address of the host to listen on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := wildcardListeners(t.Context(), listeners(c.found...))
			if got.Verdict != c.verdict || got.Detail != c.detail || !strings.HasSuffix(got.Cure, c.cure) {
				t.Errorf("got %+v, want %+v", got, c)
			}
		})
	}
}

func row(t *testing.T, c api.Check, name string) api.CheckRow {
	t.Helper()
	for _, r := range c.Rows {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no row %q", name)
	return api.CheckRow{}
}

// A kernel that is too old, and cgroup v1 only.
func TestMissingNamesWhatIsInTheWay(t *testing.T) {
	s := &probe.System{Files: fstest.MapFS{"proc/self/mountinfo": file(cgroup1Mounts)}, Release: "5.10.0-28-amd64", Data: t.TempDir()}
	c, err := run(t.Context(), s, listeners())
	if err != nil {
		t.Fatal(err)
	}
	want := "this host cannot run guests: " +
		"kernel: 5.10.0-28-amd64 is older than 6.1 (run a newer kernel, 6.1 at least); " +
		"cgroup v2: only cgroup v1 is mounted (boot with systemd.unified_cgroup_hierarchy=1, set rc_cgroup_mode=unified in /etc/rc.conf (OpenRC), or mount -t cgroup2 none /sys/fs/cgroup/unified)"
	if err := Missing(c); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if got := Status(c); got != 1 {
		t.Errorf("status %d, want 1", got)
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name string
		rows []api.CheckRow
		want int
	}{
		{"all there", []api.CheckRow{{Required: true, Verdict: api.Yes}}, 0},
		{"an extra is missing", []api.CheckRow{{Required: true, Verdict: api.Yes}, {Verdict: api.No}, {Verdict: api.Unknown}}, 0},
		{"could not tell", []api.CheckRow{{Required: true, Verdict: api.Unknown}, {Required: true, Verdict: api.Yes}}, 2},
		{"missing outweighs", []api.CheckRow{{Required: true, Verdict: api.Unknown}, {Required: true, Verdict: api.No}}, 1},
	} {
		if got := Status(api.Check{Rows: c.rows}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// The machine that runs the tests can run guests (Debian 12 or later, root), and is
// unchanged after a check.
func TestThisHost(t *testing.T) {
	before := traces(t)
	c, err := Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := Missing(c); err != nil {
		t.Error(err)
	}
	if got := Status(c); got != 0 {
		t.Errorf("status %d, want 0", got)
	}
	for _, r := range c.Rows {
		if r.Verdict == api.Unknown {
			t.Errorf("%s: could not tell: %s", r.Name, r.Detail)
		}
		if r.Verdict == api.No && (r.Detail == "" || r.Lost == "" || r.Cure == "") {
			t.Errorf("%s: a no without what was seen, what is lost, and a cure: %+v", r.Name, r)
		}
	}
	for _, name := range []string{"cgroup BPF", "nftables", "veth", "idmapped layers"} {
		if r := row(t, c, name); r.Verdict != api.Yes {
			t.Errorf("%s: %s: %s", name, r.Verdict, r.Detail)
		}
	}
	if diff := cmp.Diff(before, traces(t)); diff != "" {
		t.Errorf("the check left traces (-before +after):\n%s", diff)
	}
}

// leftover is the prefix of the names of what probes make.
const leftover = ".vsnode-check-"

// traces returns what a probe could leave behind.
func traces(t *testing.T) map[string]string {
	t.Helper()
	seen := map[string]string{}
	own := fmt.Sprintf("%s%d-", leftover, os.Getpid())
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	seen["mounts"] = fmt.Sprint(strings.Count(string(mounts), own))
	root, err := cgroup.Mount()
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{root + "/" + own + "*", probe.Here().DataDir() + "/" + own + "*", "/sys/class/net/vsncheck*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		seen[pattern] = strings.Join(names, " ")
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	seen["open files"] = fmt.Sprint(len(fds))
	return seen
}

func TestLeftoversOfKilledChecksAreRemoved(t *testing.T) {
	data := t.TempDir()
	dead := filepath.Join(data, leftover+"99999999-1") // above every pid_max
	alive := filepath.Join(data, fmt.Sprintf("%s%d-1", leftover, os.Getpid()))
	for _, dir := range []string{dead + "/layers/work/work", alive} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := &probe.System{Files: fstest.MapFS{}, Data: data}
	if _, err := run(t.Context(), s, listeners()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there (%v)", dead, err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("a running check's directory was taken away: %v", err)
	}
}

func TestRoom(t *testing.T) {
	for _, c := range []struct {
		name             string
		bytes, free, all uint64
		want             api.Verdict
	}{
		{"room", 50 << 30, 1e6, 2e6, api.Yes},
		{"btrfs makes inodes as it goes", 50 << 30, 0, 0, api.Yes},
		{"full", 1 << 30, 1e6, 2e6, api.No},
		{"out of inodes", 50 << 30, 10, 2e6, api.No},
	} {
		if got := roomFor("/x", c.bytes, c.free, c.all); got.Verdict != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestWrite(t *testing.T) {
	c := api.Check{Rows: []api.CheckRow{
		{Name: "kernel", For: "everything below", Required: true, Verdict: api.Yes, Detail: "6.1.0-50-amd64"},
		{Name: "user namespaces", For: "a guest's root is nobody on the host", Required: true, Verdict: api.No,
			Detail: "user.max_user_namespaces is 0", Lost: probe.NoGuests, Cure: "sysctl -w user.max_user_namespaces=65536"},
		{Name: "dnf", For: "building Fedora and RHEL images here", Verdict: api.No, Detail: "dnf is not installed", Lost: "…", Cure: "install dnf"},
		{Name: "nested user namespaces", For: "programs in guests", Verdict: api.Unknown, Detail: "only root can tell", Lost: "they do not run"},
		{Name: "mount API", For: "mounts by descriptor", Verdict: api.Yes},
	}}
	var got bytes.Buffer
	if err := Write(&got, c); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/table.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestModulesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "`/etc/modules-load.d/vservers.conf`")
	for _, a := range table(t.Context(), nil) {
		for _, module := range a.Modules {
			if !strings.Contains(list, "\n"+module+"\n") {
				t.Errorf("docs/check.md lacks module %s", module)
			}
		}
	}
}
