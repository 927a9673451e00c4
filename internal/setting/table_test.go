package setting

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// files is a Tree made of a map of files by name.
type files map[string]string

func (f files) Scalar(file string) string {
	line, _, _ := strings.Cut(f[file], "\n")
	return strings.TrimSpace(line)
}
func (f files) List(file string) []string {
	return slices.DeleteFunc(strings.Split(f[file], "\n"), func(s string) bool { return s == "" })
}
func (f files) Has(file string) bool { _, ok := f[file]; return ok }

// One row per setting: its words in an inventory, its file on the host, and the text of
// a plan.
func TestEverySettingGoesFromTheInventoryToTheHost(t *testing.T) {
	type settingRow struct {
		key     string
		given   []string
		content string
		change  string // from a guest without settings
		live    bool
	}
	rows := []settingRow{
		{"hostname", []string{"www.example.net"}, "www.example.net\n", "hostname www → www.example.net", false},
		{"network.dev", []string{"eth0"}, "eth0\n", "dev none → eth0", false},
		{"network.ports", []string{"443", "80/tcp"}, "443/tcp\n80/tcp\n", "ports none → 443/tcp, 80/tcp", true},
		{"network.forward", []string{"2222:22/tcp"}, "2222:22/tcp\n", "forwards none → 2222:22/tcp", true},
		{"network.metadata", []string{"allow"}, Present, "metadata refuse → allow", true},
		{"network.raw", []string{"true"}, Present, "raw sockets refuse → allow", false},
		{"nesting", []string{"false"}, "false\n", "nesting allow → refuse", false},
		{"views", []string{"lxcfs"}, "lxcfs\n", "views host → lxcfs", false},
		{"domain", []string{"customer-a"}, "customer-a\n", "trust domain none → customer-a", false},
		{"limits.memory", []string{"512M"}, "536870912\n", "memory none → 512M", true},
		{"limits.cpu", []string{"1.5"}, "150000 100000\n", "cpu none → 1.5", true},
		{"limits.processes", []string{"500"}, "500\n", "processes none → 500", true},
		{"limits.memory_high", []string{"1.5G"}, "1610612736\n", "memory high none → 1536M", true},
		{"limits.memory_low", []string{"256M"}, "268435456\n", "memory low none → 256M", true},
		{"limits.memory_min", []string{"1M"}, "1048576\n", "memory min none → 1M", true},
		{"limits.swap", []string{"0"}, "0\n", "swap none → 0", true},
		{"limits.cpu_burst", []string{"0.5"}, "50000\n", "cpu burst none → 0.5", true},
		{"limits.cpu_weight", []string{"500"}, "500\n", "cpu weight none → 500", true},
		{"limits.cpus", []string{"3,1,2,8"}, "1-3,8\n", "cpus none → 1-3,8", true},
		{"limits.memory_nodes", []string{"0-1"}, "0-1\n", "memory nodes none → 0-1", true},
		{"limits.io", []string{"root wbps=10M riops=1000", "8:0 rbps=1048576"}, "root wbps=10M riops=1000\n8:0 rbps=1M\n", "io none → 8:0 rbps=1M, root wbps=10M riops=1000", true},
		{"limits.io_weight", []string{"50"}, "50\n", "io weight none → 50", true},
		{"limits.disk", []string{"2G"}, "", "disk none → 2G", true},
		{"limits.disk_soft", []string{"1800M"}, "", "disk soft none → 1800M", true},
		{"limits.inodes", []string{"200k"}, "", "inodes none → 200000", true},
		{"limits.inodes_soft", []string{"1m"}, "", "inodes soft none → 1000000", true},
		{"limits.ulimits", []string{"nofile=1024:4096", "core=0", "memlock=64M"}, "", "ulimits none → core=0, memlock=67108864, nofile=1024:4096", true},
		{"nice", []string{"-5"}, "-5\n", "nice 0 → -5", true},
		{"ionice", []string{"best-effort:6"}, "", "ionice none → best-effort:6", true},
		{"oom_score_adj", []string{"-500"}, "-500\n", "oom_score_adj 0 → -500", true},
		{"autostart", []string{"night"}, "night\n", "autostart none → night", true},
		{"depends", []string{"db", "cache"}, "db\ncache\n", "depends none → cache, db", true},
		{"restart", []string{"on-failure:5/10m"}, "on-failure:5/10m\n", "restart no → on-failure:5/10m", true},
		{"devices", []string{"/dev/ttyUSB0:/dev/ttyS0:rwm", "/dev/fuse:r"}, "/dev/ttyUSB0:/dev/ttyS0\n/dev/fuse:r\n", "devices none → /dev/fuse:r, /dev/ttyUSB0:/dev/ttyS0", false},
	}
	for _, row := range Table {
		if row.Form == Block {
			continue // tested where they are read
		}
		t.Run(row.Key, func(t *testing.T) {
			i := slices.IndexFunc(rows, func(r settingRow) bool { return r.key == row.Key })
			if i < 0 {
				t.Fatal("it has no row in this test")
			}
			want := rows[i]
			none, some := Guest{Name: "www"}, Guest{Name: "www"}
			for _, s := range want.given {
				if err := row.Parse(&some, s); err != nil {
					t.Fatal(err)
				}
			}
			if reflect.DeepEqual(none, some) || reflect.DeepEqual(none.Record(), some.Record()) || row.Same(&none, &some) {
				t.Errorf("%v makes no difference: %+v, %+v", want.given, some, some.Record())
			}
			if got := row.Content(&some); got != want.content {
				t.Errorf("%s holds %q, want %q", row.File, got, want.content)
			}
			if got := row.Plan + " " + cmp.Or(row.Text(&none), "none") + " → " + cmp.Or(row.Text(&some), "none"); got != want.change {
				t.Errorf("a plan says %q, want %q", got, want.change)
			}
			if got := row.AtOnce(&none, &some, []string{"pids"}); got != want.live {
				t.Errorf("a running guest has it at once: %v", got)
			}
			if err := some.Check(); err != nil {
				t.Error(err)
			}
			assigned := Guest{Name: "www"}
			if row.Assign(&assigned, &some); !reflect.DeepEqual(assigned, some) {
				t.Errorf("assigned %+v, want %+v", assigned, some)
			}
			if row.File == "" {
				return
			}
			for content, guest := range map[string]Guest{want.content: some, row.Content(&none): none} {
				tree, read := files{}, Guest{Name: "www"}
				if content != "" {
					tree[row.File] = content
				}
				if err := row.Read(&read, tree); err != nil || !row.Same(&read, &guest) {
					t.Errorf("%q is read as %+v, %v; want %+v", content, read, err, guest)
				}
			}
		})
	}
}

func TestKeysAndFilesAreThereOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range Table {
		for _, name := range append([]string{"key " + row.Key, "file " + row.File}, row.Older...) {
			if seen[name] && name != "file " {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
	}
}

func TestChangesThatARunningGuestTakes(t *testing.T) {
	with := func(key string, given ...string) *Guest {
		g := &Guest{Name: "www"}
		for _, row := range Table {
			for _, s := range given {
				if row.Key == key {
					if err := row.Parse(g, s); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		return g
	}
	for _, row := range []struct {
		what        string
		key         string
		from, to    []string
		controllers []string
		want        bool
	}{
		{"a port that is added", "network.ports", []string{"80"}, []string{"443", "80"}, nil, true},
		{"a port that is taken away", "network.ports", []string{"80", "443"}, []string{"80"}, nil, false},
		{"a range that takes a port in", "network.ports", []string{"80"}, []string{"70-90"}, nil, true},
		{"a port of another protocol", "network.ports", []string{"53/tcp"}, []string{"53/udp"}, nil, false},
		{"processes where a cgroup counts them", "limits.processes", []string{"5"}, []string{"6"}, []string{"cpu", "pids"}, true},
		{"processes where the user namespace does", "limits.processes", []string{"5"}, []string{"6"}, []string{"cpu"}, false},
	} {
		t.Run(row.what, func(t *testing.T) {
			i := slices.IndexFunc(Table, func(r *Row) bool { return r.Key == row.key })
			if got := Table[i].AtOnce(with(row.key, row.from...), with(row.key, row.to...), row.controllers); got != row.want {
				t.Errorf("at once: %v", got)
			}
		})
	}
}

func TestWhatNoGuestIsSetTo(t *testing.T) {
	for _, row := range []struct {
		guest Guest
		want  string
	}{
		{Guest{Limits: Limits{MemoryBytes: -1}}, "limits.memory: -1 is less than nothing"},
		{Guest{Limits: Limits{CPUs: -0.5}}, "limits.cpu: -0.5 is less than nothing"},
		{Guest{Limits: Limits{Processes: -1}}, "limits.processes: -1 is less than nothing"},
		{Guest{Limits: Limits{CPUs: 1, CPUBurst: 2}}, "limits.cpu_burst: 2 is more than limits.cpu, 1, and the kernel saves up at most that"},
		{Guest{Limits: Limits{DiskBytes: 1 << 20, DiskSoftBytes: 2 << 20}}, "limits.disk: the soft limit is above the hard limit, limits.disk"},
		{Guest{Limits: Limits{IO: []IOLimit{{Device: "root", RBps: 1}, {Device: "root", WBps: 1}}}}, "limits.io: root has two lines: put its bounds into one"},
		{Guest{Limits: Limits{Processors: "3-1"}}, "limits.cpus: want numbers from 0 to 8191, as 0-3,8, have \"3-1\""},
		{Guest{OOMScoreAdj: -1001}, "oom_score_adj: want a number from -1000 to 1000, have -1001"},
		{Guest{TrustDomain: "../a"}, "domain: want a name of letters, digits, _ . -, have \"../a\""},
		{Guest{Nice: 20}, "nice: want a number from -20 to 19, have 20"},
	} {
		if err := row.guest.Check(); err == nil || err.Error() != row.want {
			t.Errorf("error %v, want %s", err, row.want)
		}
	}
}

func TestWhatNoLimitIs(t *testing.T) {
	for _, row := range []struct{ key, given, want string }{
		{"limits.cpus", "0-", "want numbers from 0 to 8191"},
		{"limits.cpus", "8192", "want numbers from 0 to 8191"},
		{"limits.cpus", "all", "want numbers from 0 to 8191"},
		{"limits.io", "sda wbps=1M", "no device"},
		{"limits.io", "root", "too short"},
		{"limits.io", "root speed=1M", `unknown rate "speed"`},
		{"limits.io", "root wbps=max", "no bound"},
		{"limits.io", "root wbps=fast", `no rate "fast"`},
		{"limits.ulimits", "files=100", "want a resource of as, core"},
		{"limits.ulimits", "nofile=200:100", "nofile: the soft limit 200 is above the hard limit 100"},
		{"limits.ulimits", "nofile=", "nofile: want a number"},
		{"limits.inodes", "200K", "want a number of files of at least 100"},
		{"limits.inodes", "20", "want a number of files of at least 100"},
		{"limits.disk", "1k", "want a size of at least 1M"},
		{"limits.swap", "-1", "want a size, as 0, 512M"},
		{"limits.cpu_weight", "0", "want a number from 1 to 10000"},
		{"ionice", "9", "want idle without a level"},
		{"ionice", "idle:3", "want idle without a level"},
		{"ionice", "fast", "want idle, best-effort:0"},
	} {
		i := slices.IndexFunc(Table, func(r *Row) bool { return r.Key == row.key })
		if err := Table[i].Parse(&Guest{}, row.given); err == nil || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%s: %s: error %v, want %s", row.key, row.given, err, row.want)
		}
	}
}

// What is read is written in one form, which is read as the same.
func FuzzLimits(f *testing.F) {
	for _, s := range []string{"root wbps=10M riops=1000", "8:0 rbps=max wbps=1", "nofile=1024:4096", "core=inf", "0-3,8", "3,1,2", "best-effort:4", "idle"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := ParseIO(s); err == nil {
			if again, err := ParseIO(l.String()); err != nil || again != l {
				t.Errorf("%q is %q, which is %q, %v", s, l, again, err)
			}
		}
		if u, err := ParseUlimit(s); err == nil {
			if again, err := ParseUlimit(u.String()); err != nil || again != u {
				t.Errorf("%q is %q, which is %q, %v", s, u, again, err)
			}
		}
		if n, err := numbers(s); err == nil {
			if again, err := numbers(n); err != nil || again != n {
				t.Errorf("%q is %q, which is %q, %v", s, n, again, err)
			}
		}
		if n, err := ParseIONice(s); err == nil {
			if again, err := ParseIONice(n.String()); err != nil || again != n {
				t.Errorf("%q is %q, which is %q, %v", s, n, again, err)
			}
		}
	})
}
