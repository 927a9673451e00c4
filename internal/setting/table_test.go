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
func (f files) List(file string) []string { return strings.Fields(f[file]) }
func (f files) Has(file string) bool      { _, ok := f[file]; return ok }

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
		{"limits.memory", []string{"512M"}, "536870912\n", "memory none → 512M", true},
		{"limits.cpu", []string{"1.5"}, "150000 100000\n", "cpu none → 1.5", true},
		{"limits.processes", []string{"500"}, "500\n", "processes none → 500", true},
		{"nice", []string{"-5"}, "-5\n", "nice 0 → -5", false},
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
		{Guest{Nice: 20}, "nice: want a number from -20 to 19, have 20"},
	} {
		if err := row.guest.Check(); err == nil || err.Error() != row.want {
			t.Errorf("error %v, want %s", err, row.want)
		}
	}
}
