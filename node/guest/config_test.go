package guest

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/internal/setting"
	"github.com/vsfleet/vsfleet/node/api"
)

func paths(t testing.TB) Paths {
	dir := t.TempDir()
	p := Paths{ConfigDir: dir + "/etc", DataDir: dir + "/data", RunDir: dir + "/run", LogDir: dir + "/log"}
	if err := os.MkdirAll(p.ConfigDir, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func ports(t testing.TB, words ...string) []port.Range {
	t.Helper()
	list, err := parseAll(words, port.Parse)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func parseAll[T any](words []string, parse func(string) (T, error)) (list []T, err error) {
	for _, w := range words {
		v, err := parse(w)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func forwards(t testing.TB, words ...string) []port.Forward {
	t.Helper()
	list, err := parseAll(words, port.ParseForward)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func prefixes(words ...string) (list []netip.Prefix) {
	for _, w := range words {
		list = append(list, netip.MustParsePrefix(w))
	}
	return list
}

func TestConfigurationIsReadAsItWasWritten(t *testing.T) {
	p := paths(t)
	for _, row := range []struct {
		what string
		g    api.Guest
	}{
		{"a guest that shares an address", api.Guest{Name: "www", Context: 120, Image: "sha256:ab", Hostname: "www.example.net",
			Network: api.Network{Mode: api.ModeShared, Addresses: prefixes("203.0.113.11/32"), Ports: ports(t, "80/tcp", "8000-8010/udp")}}},
		{"a guest with addresses of its own, of both families", api.Guest{Name: "testme", Context: 666,
			Network: api.Network{Mode: api.ModeOwn, Addresses: prefixes("192.168.123.123/24", "2001:db8::1/64"), Dev: "eth0"}}},
		{"a guest behind the host", api.Guest{Name: "build", Context: 49151,
			Network: api.Network{Mode: api.ModeNAT, Forwards: forwards(t, "2222:22/tcp", "192.0.2.1:53:53/udp")}}},
		{"a guest that may ask the cloud for metadata", api.Guest{Name: "agent", Context: 121,
			Network: api.Network{Mode: api.ModeShared, Addresses: prefixes("203.0.113.11/32"), Metadata: true}}},
		{"a guest that may have raw sockets", api.Guest{Name: "probe", Context: 122,
			Network: api.Network{Mode: api.ModeNAT, Raw: true}}},
		{"limits and an init of its own", api.Guest{Name: "x", Context: 2,
			Init:    api.Init{Style: "command", Command: []string{"/bin/sh", "-c", "exec sleep 1000"}},
			Limits:  api.Limits{MemoryBytes: 512 << 20, CPUs: 1.5, Processes: 500},
			Network: api.Network{Mode: api.ModeNAT}}},
	} {
		t.Run(row.what, func(t *testing.T) {
			if err := p.write(row.g, "/vservers/"+row.g.Name); err != nil {
				t.Fatal(err)
			}
			c, err := p.Read(row.g.Name)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(row.g, c.Guest, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Errorf("written and read differ:\n%s", d)
			}
			if len(c.Unread) != 0 || c.Root != "/vservers/"+row.g.Name {
				t.Errorf("without effect: %v, root %s", c.Unread, c.Root)
			}
		})
	}
}

func TestAdministratorsFilesSurviveAChange(t *testing.T) {
	p := paths(t)
	g := api.Guest{Name: "www", Context: 120, Network: api.Network{Mode: api.ModeShared, Addresses: prefixes("203.0.113.11/32"), Ports: ports(t, "80")}}
	if err := p.write(g, "/v"); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"bcapabilities": "~MKNOD\n", "cgroup/memory.oom.group": "1\n", "scripts/pre-start": "#!/bin/sh\n", "fstab": "# mine\nnone /tmp tmpfs size=16m 0 0\n",
	} {
		path := filepath.Join(p.config("www"), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	g.Network = api.Network{Mode: api.ModeNAT}
	g.Mounts = []setting.Mount{{Type: setting.Tmpfs, Target: "/tmp", Options: []string{"size=16m"}}}
	if err := p.write(g, "/v"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(p.config("www") + "/fstab"); err != nil || !strings.HasPrefix(string(text), "# mine") {
		t.Errorf("an fstab that says the same is not left as it is: %q, %v", text, err)
	}
	c, err := p.Read("www")
	if err != nil {
		t.Fatal(err)
	}
	if c.Network.Mode != api.ModeNAT || len(c.Network.Addresses) != 0 {
		t.Errorf("network is %+v", c.Network)
	}
	if hooks, err := p.hooks("www"); err != nil || len(hooks.Own()) != 1 || len(c.Unread) != 0 || len(c.Mounts) != 1 {
		t.Errorf("hooks %v, without effect: %v, mounts %v (%v)", hooks.Own(), c.Unread, c.Mounts, err)
	}
	if c.Cgroup["memory.oom.group"] != "1" || c.Caps&(1<<27) != 0 {
		t.Errorf("cgroup %v, capabilities %x", c.Cgroup, c.Caps)
	}
	left, err := filepath.Glob(p.ConfigDir + "/.*")
	if err != nil || len(left) != 0 {
		t.Errorf("left beside: %v, %v", left, err)
	}
}

// A tree as util-vserver wrote it, by hand or by its build.
func TestOldTreesAreTakenOver(t *testing.T) {
	p := paths(t)
	dir := p.config("old")
	for name, content := range map[string]string{
		"context": "42\n", "name": "old\n", "uts/nodename": "old.example.net\n",
		"interfaces/dev": "eth0\n", "interfaces/prefix": "24\n", "interfaces/0/ip": "192.0.2.10\n", "interfaces/0/name": "old\n",
		"interfaces/1/ip": "192.0.2.11\n", "interfaces/2/ip": "192.0.2.12\n", "interfaces/2/disabled": "",
		"apps/init/style": "plain\n", "apps/init/mark": "default\n", "flags": "lock\nnproc\n", "rlimits/rss": "10000\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/vservers/old", filepath.Join(dir, "vdir")); err != nil {
		t.Fatal(err)
	}
	c, err := p.Read("old")
	if err != nil {
		t.Fatal(err)
	}
	if c.Context != 42 || c.Root != "/vservers/old" || c.Network.Mode != api.ModeOwn || c.Network.Dev != "eth0" {
		t.Errorf("read %+v", c)
	}
	if d := cmp.Diff(prefixes("192.0.2.10/24", "192.0.2.11/24"), c.Network.Addresses, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
	var without []string
	for _, u := range c.Unread {
		without = append(without, u.File)
	}
	if d := cmp.Diff([]string{"flags"}, without); d != "" {
		t.Errorf("files without effect: %s", d)
	}
}

func TestBadConfigurationIsNamed(t *testing.T) {
	for _, row := range []struct{ file, content, want string }{
		{"context", "1\n", "context: want a number from 2 to 49151"},
		{"context", "many\n", "context: want a number"},
		{"context", "\n", "context: want a number"},
		{"interfaces/0/ip", "192.0.2.300\n", "interfaces/0/ip"},
		{"interfaces/0/ip", "fe80::1%eth0\n", "interfaces/0/ip: want an address, as 192.0.2.1"},
		{"interfaces/0/ip", "192.0.2.1/24\n", "interfaces/0/ip: want an address, as 192.0.2.1"},
		{"interfaces/0/prefix", "33\n", "interfaces/0/prefix: want a number from 0 to 32"},
		{"interfaces/0/prefix", "many\n", "interfaces/0/prefix: want a number from 0 to 32"},
		{"interfaces/0/prefix", "255.0.255.0\n", "interfaces/0/prefix: mask 255.0.255.0 has holes"},
		{"nice", "20\n", "nice: want a number from -20 to 19"},
		{"ulimits/files", "20\n", "ulimits/files: want a resource of as, core"},
		{"ulimits/nofile", "many\n", "ulimits/nofile: \"many\": want a number"},
		{"rlimits/rss", "-2\n", "rlimits/rss: \"-2\": want a number"},
		{"cgroup/cpu.shares", "half\n", "cgroup/cpu.shares: want a number, not \"half\""},
		{"ionice/class", "9\n", `ionice/class: want 1 (realtime), 2 (best-effort) or 3 (idle), have "9"`},
		{"sysctl/0/setting", "../x\n", "sysctl/0: want a name as kernel.shmmax"},
		{"interfaces/ports", "80/sctp\n", "interfaces/ports: port \"80/sctp\""},
		{"netns/nat", "", "not both"},
		{"bcapabilities", "SYS_MAGIC\n", `unknown capability "SYS_MAGIC"`},
		{"cgroup/memory.max", "much\n", "cgroup/memory.max: want a number or max"},
		{"cgroup/cpu.max", "1 0\n", "cgroup/cpu.max"},
	} {
		t.Run(row.file+" says "+strings.TrimSpace(row.content), func(t *testing.T) {
			p := paths(t)
			g := api.Guest{Name: "www", Context: 120, Network: api.Network{Mode: api.ModeShared, Addresses: prefixes("203.0.113.11/32")}}
			if err := p.write(g, "/v"); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(p.config("www"), row.file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(row.content), 0o644)); err != nil {
				t.Fatal(err)
			}
			_, err := p.Read("www")
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
			for _, ours := range []string{"strconv", "ParseAddr", "parsing", "invalid Prefix"} {
				if err != nil && strings.Contains(err.Error(), ours) {
					t.Errorf("error %v speaks of %s", err, ours)
				}
			}
		})
	}
}

func TestWhatTwoGuestsMayNotShare(t *testing.T) {
	shared := func(name string, xid int, addr string, words ...string) api.Guest {
		return api.Guest{Name: name, Context: xid, Network: api.Network{Mode: api.ModeShared, Addresses: prefixes(addr), Ports: ports(t, words...)}}
	}
	own := func(name string, xid int, addr string) api.Guest {
		return api.Guest{Name: name, Context: xid, Network: api.Network{Mode: api.ModeOwn, Addresses: prefixes(addr), Dev: "eth0"}}
	}
	behind := func(name string, xid int, words ...string) api.Guest {
		return api.Guest{Name: name, Context: xid, Network: api.Network{Mode: api.ModeNAT, Forwards: forwards(t, words...)}}
	}
	for _, row := range []struct {
		what string
		a, b api.Guest
		want string // empty: both are allowed
	}{
		{"one address, ports apart", shared("a", 2, "192.0.2.1/32", "80"), shared("b", 3, "192.0.2.1/32", "25"), ""},
		{"one port, addresses apart", shared("a", 2, "192.0.2.1/32", "80"), shared("b", 3, "192.0.2.2/32", "80"), ""},
		{"one port number, protocols apart", shared("a", 2, "192.0.2.1/32", "53/tcp"), shared("b", 3, "192.0.2.1/32", "53/udp"), ""},
		{"a port inside the other's range", shared("a", 2, "192.0.2.1/32", "8005"), shared("b", 3, "192.0.2.1/32", "8000-8010"), "port 8005/tcp"},
		{"one context", shared("a", 2, "192.0.2.1/32", "80"), shared("b", 2, "192.0.2.1/32", "25"), "context 2"},
		{"one address of its own each", own("a", 2, "192.0.2.1/24"), own("b", 3, "192.0.2.1/24"), "address 192.0.2.1"},
		{"an own address that another shares", own("a", 2, "192.0.2.1/24"), shared("b", 3, "192.0.2.1/32", "80"), "address 192.0.2.1"},
		{"one forward", behind("a", 2, "2222:22"), behind("b", 3, "2222:22"), "port 2222/tcp of the host"},
		{"one forward on addresses apart", behind("a", 2, "192.0.2.1:2222:22"), behind("b", 3, "192.0.2.2:2222:22"), ""},
		{"a forward of a port that another owns", behind("a", 2, "80:80"), shared("b", 3, "192.0.2.1/32", "80"), "port 80/tcp"},
		{"a forward from another's own address", behind("a", 2, "192.0.2.1:80:80"), own("b", 3, "192.0.2.1/24"), "address 192.0.2.1 is guest b's own"},
		{"an own address that is forwarded to another", own("a", 2, "192.0.2.1/24"), behind("b", 3, "192.0.2.1:80:80"), "address 192.0.2.1 is forwarded"},
		{"a port that is forwarded to another", shared("a", 2, "192.0.2.1/32", "80"), behind("b", 3, "80:80"), "port 80/tcp is forwarded"},
	} {
		t.Run(row.what, func(t *testing.T) {
			err := conflict(&row.a, &row.b)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("error %v, want %q", err, row.want)
			}
			if err != nil && !strings.Contains(err.Error(), "guest b") {
				t.Errorf("error %v does not name the other guest", err)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add("120\n", "192.0.2.1\n", "80/tcp\n", "100000 100000\n")
	f.Add("", "::ffff:192.0.2.1", "1-2", "max 5")
	f.Fuzz(func(t *testing.T, ctx, ip, portList, cpu string) {
		p := paths(t)
		for name, content := range map[string]string{"context": ctx, "interfaces/0/ip": ip, "interfaces/ports": portList, "cgroup/cpu.max": cpu} {
			path := filepath.Join(p.config("x"), name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/v", filepath.Join(p.config("x"), "vdir")); err != nil {
			t.Fatal(err)
		}
		c, err := p.Read("x")
		if err == nil && (c.Context < api.MinContext || len(c.Network.Addresses) != 1) {
			t.Errorf("accepted %+v", c)
		}
	})
}

func FuzzPasswd(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/:/bin/false\n", "adm:x:4:www-data\n", "www-data")
	f.Add("a:x:-1:99999999999:", "::::", "a")
	f.Fuzz(func(t *testing.T, passwd, group, user string) {
		uid, numeric := number(user)
		u, err := findAccount(opener(map[string]string{"etc/passwd": passwd, "etc/group": group}), user, uid, numeric)
		if err == nil && (u.UID < 0 || u.UID >= 1<<16 || u.GID < 0 || u.GID >= 1<<16) {
			t.Errorf("user %+v", u)
		}
	})
}
