package guest

import (
	gocmp "cmp"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md anew")

// plant makes a configuration of files; a content of "->PATH" makes a link to PATH.
func plant(t testing.TB, p Paths, name string, files map[string]string) {
	t.Helper()
	for file, content := range files {
		path := filepath.Join(p.config(name), file)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if to, link := strings.CutPrefix(content, "->"); link {
			err = errors.Join(err, os.Symlink(to, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The page has the tables of this package.
func TestEveryFileIsDocumented(t *testing.T) {
	const page = "../../docs/configuration.md"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, table := range []struct{ heading, rows string }{
		{"## Files\n", fileRows(knownFiles())},
		{"## Files for all guests\n", fileRows(defaultFiles())},
		{"## Flags and capabilities\n", flagRows()},
	} {
		head, rest, found := strings.Cut(text, table.heading)
		before, after, isTable := strings.Cut(rest, "|---|---|---|\n")
		_, tail, ends := strings.Cut("\n"+after, "\n\n")
		if !found || !isTable || !ends {
			t.Fatalf("%s has no table below %q", page, table.heading)
		}
		whole := head + table.heading + before + "|---|---|---|\n" + table.rows + "\n" + tail
		if !*update && whole != text {
			t.Errorf("the table below %q is not what the code has: go test ./node/guest -run %s -update", table.heading, t.Name())
		}
		text = whole
	}
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func fileRows(known []knownFile) string {
	var table strings.Builder
	for i := 0; i < len(known); {
		m := known[i]
		var files []string
		for ; i < len(known) && known[i].effect == m.effect && known[i].why == m.why; i++ {
			files = append(files, "`"+known[i].file+"`")
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", strings.Join(files, " "), m.effect, m.why)
	}
	return table.String()
}

func flagRows() string {
	var table strings.Builder
	for _, list := range oldLists {
		for _, f := range list.flags {
			here := gocmp.Or(f.why, "has")
			if choices[f.names] {
				here = "see `sched/fill-rate`"
			}
			fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", list.files[0], strings.Join(strings.Fields(f.names), "` `"), here)
		}
	}
	return table.String()
}

func TestNothingOfATreeIsDroppedSilently(t *testing.T) {
	base := map[string]string{"context": "42\n", "vdir": "->/v", "interfaces/0/ip": "192.0.2.1\n", "interfaces/0/nodev": ""}
	for _, row := range []struct {
		what  string
		files map[string]string
		want  []string // "file: part of the reason", in order; a leading "!" means that it refuses the start
	}{
		{"what every guest has", map[string]string{"flags": "lock\nfakeinit,VXF_HIDE_MOUNT\n", "namespace": "", "cache": "->/x", "name": "x\n"}, nil},
		{"hooks", map[string]string{"scripts/pre-start": "", "scripts/post-stop.d/1": "", "scripts/timeout": "90\n", "../.defaults/scripts/post-start": ""}, nil},
		{"hooks that there are not", map[string]string{"scripts/prestart": ""}, []string{"scripts/prestart: no such hook"}},
		{"a directory of hooks that is a link", map[string]string{"scripts": "->/etc"}, nil}, // its files are reported by name: below
		{"a hook that leads nowhere", map[string]string{"scripts/pre-start": "->/nowhere"}, []string{"!scripts/pre-start: find /nowhere"}},
		{"flags", map[string]string{"flags": "virt_mem\nlock\n~sched_hard\n"}, []string{"flags: virt_mem: /proc/meminfo"}},
		{"flags that no guest can be without", map[string]string{"nflags": "~lback_remap\n", "ccapabilities": "~all,secure_mount\n"}, []string{"nflags: every guest has lback_remap", "ccapabilities: ~all: every guest has set_utsname; every guest has fs_security"}},
		{"a mistyped flag", map[string]string{"flags": "lock,\n hide_mout\n"}, []string{"flags: at 2:2: unknown flag \"hide_mout\"; did you mean hide_mount?"}},
		{"context capabilities", map[string]string{"ccapabilities": "utsname,^8\nVXC_QUOTA_CTL\n"}, []string{"ccapabilities: VXC_QUOTA_CTL: quotas"}},
		{"network capabilities", map[string]string{"ncapabilities": "raw_icmp\ntun_create\n"}, []string{"ncapabilities: tun_create: tun and tap"}},
		{"namespaces of a guest", map[string]string{"umask": "newnet\n"}, []string{"umask: newnet: the file nesting"}},
		{"a personality of 32 bits", map[string]string{"personality": "linux_32bit\n"}, []string{"!personality: 32-bit programs"}},
		{"a personality that is mistyped", map[string]string{"personality": "LINUX\nUNAME_26\n"}, []string{"!personality: at 2:1: unknown flag of personality(2) \"UNAME_26\"; did you mean uname26?"}},
		{"limits of a context that no kernel has", map[string]string{"rlimits/as": "1000\n", "rlimits/rss.min": "5\n"}, []string{"!rlimits/as: use ulimits/"}},
		{"a token bucket that nothing used", map[string]string{"sched/fill-rate": "1\n", "sched/tokens-max": "500\n"}, []string{"sched/fill-rate: without the flag sched_hard", "sched/tokens-max: cpu.max.burst"}},
		{"a token bucket of one processor", map[string]string{"sched/0/cpu-id": "0\n"}, []string{"!sched/0/cpu-id: cpuset.cpus"}},
		{"disk limits of another filesystem", map[string]string{"dlimits/0/directory": "/srv\n", "dlimits/0/space_total": "1000\n", "dlimits/0/reserved": "5\n"},
			[]string{"!dlimits/0: /srv is not the directory", "dlimits/0/reserved: space_soft"}},
		{"disk limits", map[string]string{"dlimits/0/directory": "/v\n", "dlimits/0/space_total": "1000\n", "dlimits/0/reserved": "0\n", "dlimits/1/disabled": ""}, nil},
		{"cgroup v1", map[string]string{"cgroup/blkio.throttle.read_bps_device": "8:0 1\n", "cgroup/memory.memsw.limit_in_bytes": "1\n", "cgroup/name": "x\n"},
			[]string{"!cgroup/blkio.throttle.read_bps_device: io.max", "!cgroup/memory.memsw.limit_in_bytes: memory.swap.max", "cgroup/name: vservers/NAME"}},
		{"backup copies", map[string]string{"interfaces/5~/ip": "192.0.2.9\n", "interfaces/1.dpkg-old/ip": "x\n", "cgroup/memory.max.bak": "1\n", "context~": "7\n"},
			[]string{"cgroup/memory.max.bak: backup", "context~: backup", "interfaces/1.dpkg-old: backup", "interfaces/5~: backup"}},
		{"marks and order", map[string]string{"apps/init/mark": "default\n", "apps/init/depends": "db\n", "apps/init/killseq": "15 5 9\n", "disabled": ""},
			nil},
		{"other names of the kernel", map[string]string{"uts/release": "2.6.22\n"}, []string{"uts/release: kernel"}},
		{"what nobody knows", map[string]string{"interfaces/0/colour": "blue\n", "notes.txt": ""}, []string{"interfaces/0/colour: knows no such file", "notes.txt: knows no such file"}},
		{"init styles", map[string]string{"apps/init/style": "openrc\n", "apps/init/cmd.stop": "/sbin/halt\n", "apps/vshelper/sync-timeout": "60\n"}, nil},
		{"a style command without one", map[string]string{"apps/init/style": "command\n"}, []string{"!apps/init/style: apps/init/cmd.start, which is not there"}},
		{"an environment that is none", map[string]string{"apps/init/environment": "# x\nfoo bar\nexport A=B\nLANG=C\n"}, []string{"apps/init/environment:2: want NAME=VALUE", "apps/init/environment:3: want NAME=VALUE"}},
		{"an init style of the past", map[string]string{"apps/init/style": "arch\n"}, []string{"!apps/init/style: systemd: use plain"}},
		{"an init style that nobody has", map[string]string{"apps/init/style": "fake\n"}, []string{"!apps/init/style: style fake is not known"}},
		{"capabilities that an init needs", map[string]string{"bcapabilities": "~SETUID\n"}, []string{"!bcapabilities: without SETUID"}},
		{"capabilities of a guest with a command", map[string]string{"bcapabilities": "~SETUID\n", "apps/init/cmd.start": "/bin/sleep\n9\n"}, nil},
		{"a filesystem of a device", map[string]string{"fstab": "# mine\n/dev/vg/db\t/var/lib/mysql ext4 noatime 0 2\n"}, []string{"!fstab:2: guests do not mount filesystems of type ext4: mount /dev/vg/db on the host, and write here DIRECTORY /var/lib/mysql none bind"}},
		{"a mistyped bind", map[string]string{"fstab": "/srv /srv none bin 0 0\n"}, []string{`!fstab:1: "bin" is unknown (did you mean "bind"?)`}},
		{"a mistyped tmpfs", map[string]string{"fstab": "none /tmp tmpf size=1m 0 0\n"}, []string{`!fstab:1: "tmpf" is unknown (did you mean "tmpfs"?)`}},
		{"neither a type nor bind", map[string]string{"fstab": "/srv /srv none ro 0 0\n"}, []string{"!fstab:1: the type none needs the option bind"}},
		{"a mount on /proc", map[string]string{"fstab": "/srv /proc none bind 0 0\n"}, []string{"!fstab:1: target: every guest needs its own /proc"}},
		{"a read-only bind mount", map[string]string{"fstab": "/srv /srv none bind,ro\n"}, nil},
		{"an option of a mount that is not known", map[string]string{"fstab.remote": "none /tmp tmpfs size=1m,tagxid\n"}, []string{"!fstab.remote:1: options: \"tagxid\""}},
		{"what util-vserver's own fstab has", map[string]string{"fstab": "none\t/proc\tproc\tdefaults\t0 0\nnone\t/tmp\ttmpfs\tsize=16m,mode=1777\t0 0\nnone\t/dev/pts\tdevpts\tgid=5,mode=620\t0 0\n"}, nil},
	} {
		t.Run(row.what, func(t *testing.T) {
			p := paths(t)
			plant(t, p, "old", base)
			plant(t, p, "old", row.files)
			c, err := p.Read("old")
			if err != nil {
				t.Fatal(err)
			}
			if row.files["scripts"] != "" {
				if len(c.Unread) == 0 {
					t.Error("hooks behind a link are not named")
				}
				return
			}
			byFile := map[string]api.Unread{}
			for _, u := range c.Unread {
				byFile[u.File] = u
			}
			for _, want := range row.want {
				file, why, _ := strings.Cut(want, ": ")
				file, refused := strings.CutPrefix(file, "!")
				u, ok := byFile[file]
				if !ok || u.Refuses != refused || !strings.Contains(u.Why, why) {
					t.Errorf("%s is %+v, want %q", file, u, want)
				}
			}
			if len(c.Unread) != len(row.want) {
				t.Errorf("without effect: %+v", c.Unread)
			}
			if err := refusal(p.config("old"), c.Unread); (err != nil) != strings.HasPrefix(strings.Join(row.want, ""), "!") {
				t.Errorf("refused with %v", err)
			}
			// Each can be ignored.
			for file, u := range byFile {
				if u.Refuses {
					plant(t, p, "old", map[string]string{"ignore": file + "\n"})
					if c, err = p.Read("old"); err != nil {
						t.Fatal(err)
					}
					for _, now := range c.Unread {
						if now.File == file && now.Refuses {
							t.Errorf("%s still refuses the start", file)
						}
					}
				}
			}
		})
	}
}

func TestOldFilesHaveTheirMeaning(t *testing.T) {
	base := map[string]string{"context": "42\n", "vdir": "->/v", "interfaces/0/ip": "192.0.2.1\n", "interfaces/0/nodev": ""}
	inf := uint64(unix.RLIM_INFINITY)
	for _, row := range []struct {
		what  string
		files map[string]string
		get   func(c Config) any
		want  any
	}{
		{"a mask", map[string]string{"interfaces/mask": "255.255.255.0\n"}, func(c Config) any { return c.Network.Addresses[0].Bits() }, 24},
		{"a mask of one interface", map[string]string{"interfaces/mask": "255.255.255.0\n", "interfaces/0/mask": "255.255.254.0\n"}, func(c Config) any { return c.Network.Addresses[0].Bits() }, 23},
		{"a prefix goes before a mask", map[string]string{"interfaces/0/mask": "255.0.0.0\n", "interfaces/prefix": "26\n"}, func(c Config) any { return c.Network.Addresses[0].Bits() }, 26},
		{"no size", nil, func(c Config) any { return c.Network.Addresses[0].Bits() }, 32},
		{"the old name of nodev", map[string]string{"interfaces/0/only_ip": "", "interfaces/dev": "eth0\n"}, func(c Config) any { return string(c.Network.Mode) }, "shared"},
		{"ten and more interfaces in order", map[string]string{"interfaces/10/ip": "192.0.2.10\n", "interfaces/2/ip": "192.0.2.2\n"},
			func(c Config) any { return fmt.Sprint(c.Network.Addresses) }, "[192.0.2.1/32 192.0.2.2/32 192.0.2.10/32]"},
		{"the old place of the host name", map[string]string{"hostname": "www\n"}, func(c Config) any { return c.Hostname }, "www"},
		{"nice", map[string]string{"nice": "-5\n"}, func(c Config) any { return c.Guest.Nice }, -5},
		{"ulimits", map[string]string{"ulimits/nofile": "4096\n", "ulimits/core.soft": "0\n", "ulimits/stack.hard": "64M\n"}, func(c Config) any { return c.Rlimits },
			map[int]unix.Rlimit{unix.RLIMIT_NOFILE: {Cur: 4096, Max: 4096}, unix.RLIMIT_CORE: {Cur: 0, Max: inf}, unix.RLIMIT_STACK: {Cur: 64 << 20, Max: 64 << 20}}},
		{"limits of a context", map[string]string{"rlimits/nproc": "300\n", "rlimits/rss.hard": "1000\n", "rlimits/rss.soft": "inf\n"}, func(c Config) any { return c.Cgroup },
			map[string]string{"pids.max": "300", "memory.max": strconv.Itoa(1000 * os.Getpagesize())}},
		{"limits of cgroup v1", map[string]string{"cgroup/memory.limit_in_bytes": "512M\n", "cgroup/cpu.shares": "1024\n", "cgroup/cpu.cfs_quota_us": "50000\n", "cgroup/blkio.weight": "500\n"}, func(c Config) any { return c.Cgroup },
			map[string]string{"memory.max": "512M", "cpu.weight": "39", "cpu.max": "50000 100000", "io.weight": "4950"}},
		{"a limit of memory with a unit", map[string]string{"cgroup/memory.max": "512M\n"}, func(c Config) any { return c.Limits.MemoryBytes }, int64(512 << 20)},
		{"a hard limit by a token bucket", map[string]string{"sched/fill-rate": "1\n", "sched/interval": "2\n", "flags": "sched_hard\n"}, func(c Config) any { return c.Guest.Limits.CPUs }, float64(runtime.NumCPU()) / 2},
		{"the same in one file", map[string]string{"schedule": "1\n2\n0\n0\n0\n0\n", "cflags": "^8\n"}, func(c Config) any { return c.Guest.Limits.CPUs }, float64(runtime.NumCPU()) / 2},
		{"a share by a token bucket", map[string]string{"sched/fill-rate": "1\n", "sched/interval": "8\n", "sched/idle-time": "", "flags": "sched_hard,sched_prio\n"}, func(c Config) any { return c.Cgroup },
			map[string]string{"cpu.weight": "50"}},
		{"a bias", map[string]string{"sched/priority-bias": "-5\n"}, func(c Config) any { return c.Cgroup }, map[string]string{"cpu.weight": "305"}},
		{"badness", map[string]string{"badness": "-300\n"}, func(c Config) any { return c.Guest.OOMScoreAdj }, -300},
		{"a class of input and output", map[string]string{"ionice/class": "3\n"}, func(c Config) any { return c.IOPriority }, 3 << 13},
		{"a priority alone", map[string]string{"ionice/priority": "7\n"}, func(c Config) any { return c.IOPriority }, 2<<13 | 7},
		{"a personality", map[string]string{"personality": "LINUX\nUNAME26\naddr_no_randomize\n"}, func(c Config) any { return c.Personality }, uint32(0x60000)},
		{"hexadecimal limits, and decimal units", map[string]string{"ulimits/nofile": "0x400\n", "ulimits/fsize": "2k\n"}, func(c Config) any { return c.Rlimits },
			map[int]unix.Rlimit{unix.RLIMIT_NOFILE: {Cur: 1024, Max: 1024}, unix.RLIMIT_FSIZE: {Cur: 2000, Max: 2000}}},
		{"a cpuset", map[string]string{"cpuset/cpus": "0-1\n"}, func(c Config) any { return c.Cgroup }, map[string]string{"cpuset.cpus": "0-1"}},
		{"bind mounts and a tmpfs", map[string]string{"fstab": "/srv/my\\040db /var/lib/mysql none bind,noatime 0 0\nnone /tmp tmpfs size=16m,mode=1777 0 0\n/dev/sdb1 /x ext4 noauto 0 0\n"}, func(c Config) any { return c.Mounts },
			[]procctx.Mount{{Line: "fstab:1", Source: "/srv/my db", Place: "/var/lib/mysql", Attrs: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOATIME},
				{Line: "fstab:2", Place: "/tmp", Attrs: unix.MOUNT_ATTR_NODEV, Options: []string{"mode", "1777", "size", "16m"}}}},
		{"read-only, with other ids, and not there", map[string]string{"fstab": "/srv /a none bind,ro,nofail,idmap=uids=1000-33-1;gids=1000-33-1\n"}, func(c Config) any { return c.Mounts },
			[]procctx.Mount{{Line: "fstab:1", Source: "/srv", Place: "/a", Optional: true, Attrs: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY,
				UIDs: []procctx.IDRange{{Disk: 1000, Guest: 33, Count: 1}}, GIDs: []procctx.IDRange{{Disk: 1000, Guest: 33, Count: 1}}}}},
		{"a tmpfs without a size", map[string]string{"fstab": "none /tmp tmpfs defaults\n"}, func(c Config) any { return c.Mounts[0].Options }, []string{"size", "16m"}},
		{"a volume", map[string]string{"fstab": "data /srv volume defaults 0 0\n"}, func(c Config) any { return c.Guest.Volumes },
			[]setting.Mount{{Type: setting.Volume, Source: "data", Target: "/srv"}}},
		{"devices", map[string]string{"apps/vdevmap/0/device": "/dev/ttyS0\n", "apps/vdevmap/0/target": "/dev/ttyUSB0\n", "apps/vdevmap/0/open": "", "apps/vdevmap/0/remap": "", "apps/vdevmap/1/device": "/dev/fuse\n", "apps/vdevmap/1/open": "", "apps/vdevmap/1/access": "r\n"},
			func(c Config) any { return fmt.Sprint(c.Guest.Devices) }, "[/dev/ttyUSB0:/dev/ttyS0 /dev/fuse:r]"},
		{"a sysctl", map[string]string{"sysctl/0/setting": "kernel.shmmax\n", "sysctl/0/value": "1000\n"}, func(c Config) any { return c.Sysctls },
			[]procctx.Sysctl{{Line: "sysctl/0/setting", Path: "kernel/shmmax", Value: "1000"}}},
		{"an environment", map[string]string{"apps/init/environment": "LANG=C\n# x\nTZ=UTC\n"}, func(c Config) any { return c.Env }, []string{"LANG=C", "TZ=UTC"}},
		{"the environment of all guests", map[string]string{"../.defaults/apps/init/environment": "LANG=C\n"}, func(c Config) any { return c.Env }, []string{"LANG=C"}},
		{"limits of all guests, and one's own", map[string]string{"../.defaults/cgroup/pids.max": "10\n", "../.defaults/cgroup/io.weight": "50\n", "../.defaults/cgroup/mnt": "/x\n", "cgroup/pids.max": "20\n"},
			func(c Config) any { return c.Cgroup }, map[string]string{"pids.max": "20", "io.weight": "50"}},
		{"the shell of all guests", map[string]string{"../.defaults/shell": "/bin/zsh\n"}, func(c Config) any { return c.Shell }, "/bin/zsh"},
	} {
		t.Run(row.what, func(t *testing.T) {
			p := paths(t)
			plant(t, p, "old", base)
			plant(t, p, "old", row.files)
			c, err := p.Read("old")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(row.want, row.get(c)); d != "" {
				t.Error(d)
			}
			if len(c.Unread) != 0 {
				t.Errorf("without effect: %+v", c.Unread)
			}
		})
	}
}

func TestGuestsLieWhereUtilVserverPutsThem(t *testing.T) {
	p := paths(t)
	base := t.TempDir()
	if err := errors.Join(os.MkdirAll(base+"/www", 0o755), os.MkdirAll(p.ConfigDir+"/.defaults", 0o755), os.Symlink(base, p.ConfigDir+"/.defaults/vdirbase")); err != nil {
		t.Fatal(err)
	}
	h := &Host{Paths: p}
	for _, row := range []struct{ what, vdir string }{
		{"no link", ""},
		{"a link over the base", "->" + p.ConfigDir + "/.defaults/vdirbase/www"},
		{"a link relative to the configuration", "->../.defaults/vdirbase/www"},
	} {
		t.Run(row.what, func(t *testing.T) {
			if err := os.RemoveAll(p.config("www")); err != nil {
				t.Fatal(err)
			}
			files := map[string]string{"context": "42\n", "netns/nat": ""}
			if row.vdir != "" {
				files["vdir"] = row.vdir
			}
			plant(t, p, "www", files)
			c, err := h.Read("www")
			if err != nil {
				t.Fatal(err)
			}
			sp, err := h.spec(t.Context(), c)
			if err != nil || sp.Root.Upper != base+"/www" {
				t.Errorf("its files are at %s (%v), want %s/www", sp.Root.Upper, err, base)
			}
			names, err := h.Names()
			if err != nil || len(names) != 1 {
				t.Errorf("guests are %v (%v)", names, err)
			}
		})
	}
}

func TestWithoutFilesBothPlacesAreNamed(t *testing.T) {
	p := paths(t)
	plant(t, p, "www", map[string]string{"context": "42\n", "netns/nat": ""})
	_, err := p.Read("www")
	for _, place := range []string{p.config("www") + "/vdir", p.ConfigDir + "/.defaults/vdirbase/www"} {
		if err == nil || !strings.Contains(err.Error(), place) {
			t.Errorf("error %v, want %s in it", err, place)
		}
	}
}

func TestInterfacesOnSeveralDevices(t *testing.T) {
	addr := netip.MustParseAddr
	for _, row := range []struct {
		what  string
		files map[string]string
		mode  api.Mode
		dev   string
		want  map[netip.Addr]api.Place
		err   string
	}{
		{"one device", map[string]string{"interfaces/dev": "eth0\n"}, api.ModeOwn, "eth0", nil, ""},
		{"two devices", map[string]string{"interfaces/0/dev": "eth0\n", "interfaces/1/dev": "eth1\n"}, api.ModeOwn, "eth0", map[netip.Addr]api.Place{addr("192.0.2.2"): {Dev: "eth1"}}, ""},
		{"own addresses and one of the host's", map[string]string{"interfaces/0/nodev": "", "interfaces/1/dev": "eth0\n"}, api.ModeOwn, "eth0", map[netip.Addr]api.Place{addr("192.0.2.1"): {NoDev: true}}, ""},
		{"all of the host's", map[string]string{"interfaces/0/nodev": "", "interfaces/1/nodev": "", "interfaces/dev": "eth0\n"}, api.ModeShared, "", nil, ""},
		{"labels and broadcast addresses", map[string]string{"interfaces/dev": "eth0\n", "interfaces/prefix": "24\n", "interfaces/0/name": "www\n", "interfaces/bcast": "192.0.2.255\n", "interfaces/1/bcast": "-\n"}, api.ModeOwn, "eth0",
			map[netip.Addr]api.Place{addr("192.0.2.1"): {Label: "www"}, addr("192.0.2.2"): {Broadcast: addr("192.0.2.0")}}, ""},
		{"a label that is too long", map[string]string{"interfaces/dev": "eth0\n", "interfaces/0/name": "administration\n"}, "", "", nil, "interfaces/0/name: want a word with which eth0:administration has at most 15 characters"},
		{"a broadcast address that is none", map[string]string{"interfaces/dev": "eth0\n", "interfaces/1/bcast": "192.0.2\n"}, "", "", nil, `interfaces/1/bcast: want an address, + or -, not "192.0.2"`},
	} {
		t.Run(row.what, func(t *testing.T) {
			p := paths(t)
			plant(t, p, "old", map[string]string{"context": "42\n", "vdir": "->/v", "interfaces/0/ip": "192.0.2.1\n", "interfaces/1/ip": "192.0.2.2\n"})
			plant(t, p, "old", row.files)
			c, err := p.Read("old")
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("error %v, want %q", err, row.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			n := c.Network
			if d := cmp.Diff(row.want, n.Places, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" || n.Mode != row.mode || n.Dev != row.dev {
				t.Errorf("mode %s on %q: %s", n.Mode, n.Dev, d)
			}
			if err := check(c.Guest); err != nil {
				t.Error(err)
			}
			// What is written is read again.
			if err := p.write(c.Guest, "/v"); err != nil {
				t.Fatal(err)
			}
			again, err := p.Read("old")
			if err != nil || !reflect.DeepEqual(again.Network, n) {
				t.Errorf("written and read: %+v, %v, want %+v", again.Network, err, n)
			}
			to := n
			to.Places, to.Addresses = nil, n.Addresses[1:]
			keepPlaces(&to, n)
			if _, kept := to.Places[addr("192.0.2.2")]; kept != (n.Places[addr("192.0.2.2")] != api.Place{}) || len(to.Places) > 1 {
				t.Errorf("kept for the address that stays: %+v", to.Places)
			}
		})
	}
}

// utilVserverNames returns the files of util-vserver's tree: those of its configuration
// document, and those that only its scripts read.
func utilVserverNames(t *testing.T) (names []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/util-vserver")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			names = append(names, line)
		}
	}
	return names
}

// Each name of util-vserver's configuration document, of which the last had 209, is read
// or named with a reason.
func TestEveryNameOfUtilVserverIsKnown(t *testing.T) {
	names := utilVserverNames(t)
	if len(names) < 209 {
		t.Errorf("only %d names", len(names))
	}
	for _, name := range names {
		known := knownFiles()
		if strings.HasPrefix(name, ".") {
			known = defaultFiles()
		}
		i := slices.IndexFunc(known, func(m knownFile) bool { return m.matches(name) })
		if i < 0 || known[i].why == "" {
			t.Errorf("%s is neither read nor named", name)
		}
	}
}

func TestFilesForAllGuestsAreNamed(t *testing.T) {
	p := paths(t)
	if list, err := p.UnreadDefaults(); err != nil || list != nil {
		t.Errorf("without any: %v, %v", list, err)
	}
	plant(t, p, ".defaults", map[string]string{
		"vdirbase": "->/", "shell": "/bin/sh\n", "cgroup/mnt": "/x\n", "cgroup/pids.max": "5\n", "apps/vunify/hash/root": "->/", "apps/vunify/exclude": "",
		"scripts/pre-start": "", "scripts/start": "", "colour": "", "shell~": "",
	})
	plant(t, p, ".distributions", map[string]string{"fc6/pkgs/01": ""})
	list, err := p.UnreadDefaults()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(api.Explain(list), "\n")
	for _, want := range []string{".defaults/apps/vunify/hash/root: files are shared by their content", ".defaults/cgroup/mnt: cgroup v2", ".defaults/colour: vsnode knows no such file", ".distributions: a distribution", ".defaults/scripts/start: there is no such hook"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %s", got, want)
		}
	}
	if n := strings.Count(got, "\n") + 1; n != 5 {
		t.Errorf("%d reasons: %s", n, got)
	}
}
