package guest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux/killtest"
	"github.com/vsfleet/vsfleet/internal/port"
	"github.com/vsfleet/vsfleet/node/api"
)

// An oldGuest is a guest as util-vserver left it.
type oldGuest struct {
	files map[string]string // of its configuration
	ids   func(id int) int  // user ids of its files
	root  func(t *testing.T, root string)
}

// realTree is what a guest of some years looks like.
func realTree() map[string]string {
	return map[string]string{
		"context": "50123\n", "name": "www\n", "uts/nodename": "www.example.net\n", "uts/release": "2.6.22\n", "flags": "virt_mem\nvirt_uptime\nhide_netif\nlock\n",
		"bcapabilities": "NET_RAW\n", "ccapabilities": "raw_icmp,secure_mount\n", "nflags": "lback_remap\n", "ncapabilities": "raw_icmp\n",
		"interfaces/dev": "eth0\n", "interfaces/prefix": "24\n", "interfaces/0/ip": "192.0.2.10\n", "interfaces/0/name": "www\n", "interfaces/0/bcast": "192.0.2.255\n",
		"interfaces/1/ip": "192.0.2.11\n", "interfaces/1~/ip": "192.0.2.12\n",
		"rlimits/nproc.hard": "300\n", "rlimits/as": "1000000\n", "ulimits/nofile": "4k\n", "nice": "5\n", "schedule": "1\n4\n500\n50\n1000\n0\n",
		"fstab":             "none /proc proc defaults 0 0\nnone /tmp tmpfs size=16m,mode=1777 0 0\nnone /dev/pts devpts gid=5,mode=620 0 0\n/dev/vg/db /var/lib/mysql ext3 defaults 0 0\n",
		"scripts/pre-start": "#!/bin/sh\n", "apps/init/mark": "default\n", "apps/init/depends": "db\n", "apps/init/killseq": "15 5 9\n", "apps/init/sync": "",
		"apps/vunify/refserver.00": "->/etc/vservers/ref", "run": "->/var/run/vservers/www", "cache": "->/var/cache/vservers/www",
	}
}

// plantOld makes an old guest and returns the directory of its files, elsewhere.
func plantOld(t *testing.T, p Paths, name string, o oldGuest) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "vservers", name)
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "home/me"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	must(t, errors.Join(os.WriteFile(root+"/bin/su", []byte("su"), 0o755), os.WriteFile(root+"/home/me/file", []byte("mine"), 0o600),
		os.WriteFile(root+"/etc/passwd", []byte("root:x:0:0::/root:/bin/sh\n"), 0o644), os.Symlink("/etc/shadow", root+"/etc/link")))
	ids := o.ids
	if ids == nil {
		ids = func(id int) int { return id }
	}
	for _, path := range []string{".", "bin", "etc", "proc", "home", "bin/su", "etc/passwd", "etc/link"} {
		must(t, os.Lchown(filepath.Join(root, path), ids(0), 0))
	}
	must(t, errors.Join(os.Chown(root+"/home/me", ids(1000), 1000), os.Chown(root+"/home/me/file", ids(1000), 1000), unix.Chmod(root+"/bin/su", 0o4755)))
	if o.root != nil {
		o.root(t, root)
	}
	files := maps.Clone(o.files)
	if _, given := files["vdir"]; !given {
		files["vdir"] = "->" + root
	}
	plant(t, p, name, files)
	return root
}

// allow agrees to everything.
func allow(AdoptionPlan) (bool, error) { return true, nil }

func TestOldGuestsAreTakenOver(t *testing.T) {
	tagged := func(tag int) func(int) int { return func(id int) int { return id | tag<<16 } }
	base := func(more map[string]string) map[string]string {
		files := map[string]string{"context": "42\n", "interfaces/0/ip": "192.0.2.10\n", "interfaces/0/dev": "eth0\n"}
		for file, content := range more {
			if files[file] = content; content == "-" {
				delete(files, file)
			}
		}
		return files
	}
	shared := base(map[string]string{"interfaces/0/nodev": ""})
	http, err := port.Parse("80/tcp")
	must(t, err)
	for _, row := range []struct {
		what    string
		guest   oldGuest
		adopt   Adoption
		changes []string // parts of the lines that are shown, in order
		stays   []string
		want    map[string]string // files afterwards; "-": not there
	}{
		{"one that needs nothing", oldGuest{files: base(nil)}, Adoption{}, nil, nil, map[string]string{"context": "42\n"}},
		{"a real one", oldGuest{files: realTree(), ids: tagged(50123), root: func(t *testing.T, root string) {
			must(t, errors.Join(os.Remove(root+"/sys"), os.Remove(root+"/dev")))
		}}, Adoption{},
			[]string{`context: "50123" is not a number from 2 to 49151`, "directories: /sys, /dev", "owners: 10 files have tag 50123 in the user ids", "ignore: it starts without fstab:4", "rlimits/as"},
			[]string{"virt_mem: /proc/meminfo", "apps/vunify/refserver.00", "interfaces/1~"},
			map[string]string{"context": fmt.Sprint(api.FirstAutoContext, "\n"), "ignore": "fstab:4\nrlimits/as\n", "scripts/pre-start": "#!/bin/sh\n", "interfaces/1~/ip": "192.0.2.12\n"}},
		{"a context that another guest has", oldGuest{files: base(map[string]string{"context": "77\n"})}, Adoption{},
			[]string{"context: 77 is guest neighbour's"}, nil, map[string]string{"context": fmt.Sprint(api.FirstAutoContext, "\n")}},
		{"no context, and a tag of its own", oldGuest{files: base(map[string]string{"context": "-", "tag": "300\n"}), ids: tagged(300)}, Adoption{},
			[]string{"owners: 10 files have tag 300"}, nil, map[string]string{"context": fmt.Sprint(api.FirstAutoContext, "\n"), "tag": "-"}},
		{"shared addresses with ports", oldGuest{files: shared}, Adoption{Ports: []port.Range{http}}, []string{"interfaces/ports: it may bind 80/tcp"}, nil,
			map[string]string{"interfaces/ports": "80/tcp\n"}},
		{"shared addresses with ports that are asked for", oldGuest{files: shared}, Adoption{AskPorts: func(addresses []string) ([]port.Range, error) {
			if !slices.Equal(addresses, []string{"192.0.2.10"}) {
				return nil, fmt.Errorf("asked for %v", addresses)
			}
			return []port.Range{http}, nil
		}}, []string{"interfaces/ports"}, nil, map[string]string{"interfaces/ports": "80/tcp\n"}},
		{"shared addresses without ports", oldGuest{files: shared}, Adoption{}, []string{"ports: none is given"}, nil, map[string]string{"interfaces/ports": "-"}},
		{"ignored files are added to", oldGuest{files: base(map[string]string{"ignore": "# mine\nfoo", "personality": "linux32\n"})}, Adoption{},
			[]string{"ignore: it starts without personality"}, nil, map[string]string{"ignore": "# mine\nfoo\npersonality\n"}},
		{"unified files", oldGuest{files: base(nil), root: func(t *testing.T, root string) {
			must(t, os.Link(root+"/bin/su", filepath.Dir(root)+"/ref"))
		}}, Adoption{}, []string{"unified files: 1 are shared"}, nil, nil},
		{"owners that no guest has, which are left", oldGuest{files: base(nil), root: func(t *testing.T, root string) {
			must(t, os.Chown(root+"/home/me/file", 5_000_000, 0))
			must(t, os.Chown(root+"/etc/passwd", 9_000_000, 12_000_000))
		}}, Adoption{KeepOwners: true}, []string{"files of others"}, nil, nil},
	} {
		t.Run(row.what, func(t *testing.T) {
			p := paths(t)
			h := &Host{Paths: p}
			plant(t, p, "neighbour", map[string]string{"context": "77\n", "netns/nat": "", "vdir": "->/nowhere"})
			root := plantOld(t, p, "www", row.guest)
			before := oldFiles(t, p.config("www"))
			// A dry run changes nothing.
			var shown AdoptionPlan
			dry := row.adopt
			dry.Agree = func(plan AdoptionPlan) (bool, error) { shown = plan; return false, nil }
			if outcome, err := h.Adopt(t.Context(), "www", dry); err != nil || outcome != api.Unchanged {
				t.Fatalf("looked: %v, %v", outcome, err)
			}
			if d := cmp.Diff(before, oldFiles(t, p.config("www"))); d != "" {
				t.Errorf("a dry run changes: %s", d)
			}
			inOrder(t, "changes", shown.Changes, row.changes)
			inOrder(t, "what stays", shown.Stays, row.stays)
			row.adopt.Agree = allow
			outcome, err := h.Adopt(t.Context(), "www", row.adopt)
			if err != nil || (outcome == api.Changed) != (row.changes != nil) {
				t.Fatalf("taken over: %v, %v", outcome, err)
			}
			after := oldFiles(t, p.config("www"))
			for file, want := range row.want {
				if got, there := after[file]; there != (want != "-") || there && got != want {
					t.Errorf("%s holds %q, want %q", file, got, want)
				}
			}
			if _, there := after[adoptingFile]; there {
				t.Error("the takeover goes on")
			}
			if st := lstat(t, root+"/bin/su"); st.Uid != 0 || st.Mode&0o7777 != 0o4755 || st.Nlink != 1 {
				t.Errorf("su is %d's, %o, with %d links", st.Uid, st.Mode, st.Nlink)
			}
			c, err := p.Read("www")
			must(t, err)
			must(t, refusal("", c.Unread))
			backups, err := filepath.Glob(p.config("www") + ".~*~")
			must(t, err)
			if len(backups) != len(shown.Backup[:min(len(shown.Backup), 1)]) {
				t.Fatalf("backups: %v", backups)
			}
			if backups != nil {
				if d := cmp.Diff(before, oldFiles(t, backups[0])); d != "" {
					t.Errorf("the backup differs: %s", d)
				}
			}
			if outcome, err := h.Adopt(t.Context(), "www", Adoption{Agree: allow, Ports: row.adopt.Ports, KeepOwners: row.adopt.KeepOwners}); err != nil {
				t.Errorf("taken over again: %v, %v", outcome, err)
			}
		})
	}
}

func lstat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	must(t, unix.Lstat(path, &st))
	return st
}

// inOrder checks that the parts are in the lines, each behind the one before.
func inOrder(t *testing.T, what string, lines, parts []string) {
	t.Helper()
	text := strings.Join(lines, "\n")
	if parts == nil && what == "changes" && text != "" {
		t.Errorf("%s: %s", what, text)
	}
	rest := text
	for _, part := range parts {
		var found bool
		if _, rest, found = strings.Cut(rest, part); !found {
			t.Errorf("%s lack %q: %s", what, part, text)
		}
	}
}

// oldFiles returns the files of a configuration, and the targets of links.
func oldFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		must(t, err)
		if to, err := os.Readlink(path); err == nil {
			all[rel] = "->" + to
			return nil
		}
		b, err := os.ReadFile(path)
		all[rel] = string(b)
		return err
	}))
	return all
}

func TestGuestsThatAreNotTakenOver(t *testing.T) {
	own := map[string]string{"context": "42\n", "interfaces/0/ip": "192.0.2.10\n", "interfaces/0/dev": "eth0\n"}
	with := func(file, content string) map[string]string {
		files := maps.Clone(own)
		files[file] = content
		return files
	}
	http, err := port.Parse("80/tcp")
	must(t, err)
	for _, row := range []struct {
		what  string
		guest oldGuest
		adopt Adoption
		want  string
	}{
		{"a directory that is not there", oldGuest{files: with("vdir", "->/nowhere/www")}, Adoption{}, "its own files (vdir)"},
		{"the host's own root", oldGuest{files: with("vdir", "->/")}, Adoption{}, "which is the host's"},
		{"an address that is none", oldGuest{files: with("interfaces/0/ip", "192.0.2\n")}, Adoption{}, "interfaces/0/ip: want an address"},
		{"no address at all", oldGuest{files: map[string]string{"context": "42\n"}}, Adoption{}, "no address"},
		{"another guest's address", oldGuest{files: with("interfaces/0/ip", "192.0.2.77\n")}, Adoption{}, "address 192.0.2.77 is guest neighbour's"},
		{"a capability that is mistyped", oldGuest{files: with("bcapabilities", "NET_RAW\nNET_ADMN\n")}, Adoption{}, "bcapabilities:2:1: unknown capability"},
		{"ports of a guest that has all", oldGuest{files: own}, Adoption{Ports: []port.Range{http}}, "it is in mode own"},
		{"one that is refused, which is not asked about its ports before", oldGuest{files: map[string]string{
			"context": "42\n", "interfaces/0/ip": "192.0.2.10\n", "interfaces/0/nodev": "", "vdir": "->/",
		}}, Adoption{AskPorts: func([]string) ([]port.Range, error) { return nil, errors.New("asked") }}, "which is the host's"},
		{"owners that no guest has", oldGuest{files: own, root: func(t *testing.T, root string) {
			must(t, os.Chown(root+"/home/me/file", 5_000_000, 0))
			must(t, os.Chown(root+"/etc/passwd", 9_000_000, 12_000_000))
		}}, Adoption{}, "--keep-owners"},
		{"a filesystem that takes no idmapped mounts", oldGuest{files: own, root: func(t *testing.T, root string) {
			must(t, unix.Mount("none", root, "ramfs", 0, ""))
			t.Cleanup(func() { must(t, unix.Unmount(root, 0)) })
		}}, Adoption{}, "on a filesystem that takes no idmapped mounts"},
		{"a state that is damaged", oldGuest{files: with(adoptingFile, "{")}, Adoption{}, "adopting is damaged"},
	} {
		t.Run(row.what, func(t *testing.T) {
			p := paths(t)
			h := &Host{Paths: p}
			plant(t, p, "neighbour", map[string]string{"context": "77\n", "interfaces/0/ip": "192.0.2.77\n", "interfaces/0/dev": "eth0\n", "vdir": "->/srv"})
			plantOld(t, p, "www", row.guest)
			before := oldFiles(t, p.ConfigDir)
			row.adopt.Agree = allow
			outcome, err := h.Adopt(t.Context(), "www", row.adopt)
			if err == nil || !strings.Contains(err.Error(), row.want) || outcome != api.Unchanged {
				t.Errorf("%v, %v, want %q", outcome, err, row.want)
			}
			if d := cmp.Diff(before, oldFiles(t, p.ConfigDir)); d != "" {
				t.Errorf("changed: %s", d)
			}
		})
	}
	if _, err := (&Host{Paths: paths(t)}).Adopt(t.Context(), "www", Adoption{Agree: allow}); !errors.Is(err, ErrNoGuest) {
		t.Errorf("a guest that is not there: %v", err)
	}
}

// A takeover that is killed before one of its changes is finished by the same call, and the
// guest does not start meanwhile.
func TestATakeoverThatIsKilledGoesOn(t *testing.T) {
	taken := func(k int) killtest.Result {
		dir := t.TempDir()
		h := hostAt(dir)
		p := h.Paths
		must(t, os.Mkdir(p.ConfigDir, 0o755))
		root := plantOld(t, p, "www", oldGuest{files: realTree(), ids: func(id int) int { return id | 50123<<16 }})
		before := oldFiles(t, p.config("www"))
		r := killBefore(t, k, "adopt", "www", dir)
		if r.Status > 0 {
			t.Fatalf("change %d: exit status %d", k, r.Status)
		}
		c, err := p.Read("www")
		starts := err == nil && refusal("", c.Unread) == nil
		outcome, err := h.Adopt(context.Background(), "www", Adoption{Agree: allow})
		if err != nil || !r.Killed && outcome == api.Changed {
			t.Fatalf("change %d: went on: %v, %v", k, outcome, err)
		}
		if starts && outcome == api.Changed {
			t.Errorf("change %d: it would have started half taken over", k)
		}
		after := oldFiles(t, p.config("www"))
		if after["context"] != fmt.Sprint(api.FirstAutoContext, "\n") || after[adoptingFile] != "" || after["ignore"] != "fstab:4\nrlimits/as\n" {
			t.Errorf("change %d: %+v", k, after)
		}
		if st := lstat(t, root+"/home/me/file"); st.Uid != 1000 {
			t.Errorf("change %d: a file is %d's", k, st.Uid)
		}
		backups, err := filepath.Glob(p.ConfigDir + "/*~")
		must(t, err)
		if len(backups) != 1 {
			t.Fatalf("change %d: backups %v", k, backups)
		}
		if d := cmp.Diff(before, oldFiles(t, backups[0])); d != "" {
			t.Errorf("change %d: the backup differs: %s", k, d)
		}
		if rest, err := filepath.Glob(p.ConfigDir + "/.www*"); err != nil || rest != nil {
			t.Errorf("change %d: left %v, %v", k, rest, err)
		}
		return r
	}
	for _, k := range killtest.Steps(t, taken(0).Changes, 40) {
		taken(k)
	}
}

// A full disk stops it before anything is lost.
func TestATakeoverOnAFullDisk(t *testing.T) {
	p := paths(t)
	h := &Host{Paths: p}
	root := plantOld(t, p, "www", oldGuest{files: realTree(), ids: func(id int) int { return id | 50123<<16 }})
	files := oldFiles(t, p.config("www"))
	must(t, os.RemoveAll(p.ConfigDir))
	must(t, os.MkdirAll(p.ConfigDir, 0o755))
	must(t, unix.Mount("small", p.ConfigDir, "tmpfs", 0, "nr_inodes=250,size=2m"))
	t.Cleanup(func() { must(t, unix.Unmount(p.ConfigDir, unix.MNT_DETACH)) })
	plant(t, p, "www", files)
	var filler []string
	for i := 0; ; i++ {
		path := fmt.Sprintf("%s/.filler%d", p.ConfigDir, i)
		if err := os.WriteFile(path, nil, 0o600); errors.Is(err, syscall.ENOSPC) {
			break
		}
		filler = append(filler, path)
	}
	before := oldFiles(t, p.config("www"))
	for room := 0; ; room++ {
		if _, err := h.Adopt(t.Context(), "www", Adoption{Agree: allow}); err == nil {
			break
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		now := oldFiles(t, p.config("www"))
		delete(now, adoptingFile)
		if d := cmp.Diff(before, now); d != "" {
			t.Fatalf("with room for %d: %s", room, d)
		}
		must(t, os.Remove(filler[room]))
	}
	if st := lstat(t, root+"/home/me/file"); st.Uid != 1000 {
		t.Errorf("a file is %d's", st.Uid)
	}
}
