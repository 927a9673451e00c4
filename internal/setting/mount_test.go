package setting

import (
	"strings"
	"testing"
)

func TestMountsAreLinesOfFstab(t *testing.T) {
	for _, row := range []struct {
		what  string
		mount Mount
		want  string // a line, or the beginning of an error
	}{
		{"a directory of the host", Mount{Type: Bind, Source: "/srv/my www", Target: "/var/www", Options: []string{"ro", "nosuid", "ro"}}, `/srv/my\040www /var/www none bind,nosuid,ro 0 0`},
		{"options that change nothing", Mount{Type: RBind, Source: "/srv", Target: "/srv", Options: []string{"rw", "defaults", "rbind"}}, "/srv /srv none rbind 0 0"},
		{"a tmpfs", Mount{Type: Tmpfs, Target: "/tmp", Options: []string{"size=64m", "mode=1777"}}, "none /tmp tmpfs mode=1777,size=64m 0 0"},
		{"a volume", Mount{Type: Volume, Source: "data", Target: "/var/lib/db"}, "data /var/lib/db volume defaults 0 0"},
		{"a shared volume", Mount{Type: Volume, Source: "data", Target: "/d", Options: []string{"shared"}}, "data /d volume shared 0 0"},
		{"ids of its own", Mount{Type: Bind, Source: "/srv", Target: "/d", Options: []string{"idmap=uids=1000-33-1;gids=1000-33-1"}}, "/srv /d none bind,idmap=uids=1000-33-1;gids=1000-33-1 0 0"},
		{"a relative source", Mount{Type: Bind, Source: "srv", Target: "/d"}, "source: want an absolute path"},
		{"a source with dots", Mount{Type: Bind, Source: "/srv/../etc", Target: "/d"}, "source: want an absolute path"},
		{"a line break", Mount{Type: Bind, Source: "/srv\n", Target: "/d"}, "source: want an absolute path"},
		{"the root", Mount{Type: Bind, Source: "/srv", Target: "/"}, "target: want an absolute path in the guest below /"},
		{"device nodes", Mount{Type: Bind, Source: "/srv", Target: "/d", Options: []string{"dev"}}, "options: device nodes do not work"},
		{"an unknown option", Mount{Type: Bind, Source: "/srv", Target: "/d", Options: []string{"size=1"}}, `options: "size=1" is unknown here`},
		{"a volume with a path", Mount{Type: Volume, Source: "../x", Target: "/d"}, "volume: want a name"},
		{"a tmpfs with a source", Mount{Type: Tmpfs, Source: "/x", Target: "/d"}, "source: a tmpfs has none"},
		{"an option of a tmpfs that is no number", Mount{Type: Tmpfs, Target: "/d", Options: []string{"size=x"}}, `options: size: "x" is not a size`},
		{"a size with two units", Mount{Type: Tmpfs, Target: "/d", Options: []string{"size=64mk"}}, `options: size: "64mk" is not a size`},
		{"an empty size", Mount{Type: Tmpfs, Target: "/d", Options: []string{"size="}}, `options: size: "" is not a size`},
		{"half of the memory", Mount{Type: Tmpfs, Target: "/d", Options: []string{"size=50%"}}, "none /d tmpfs size=50% 0 0"},
		{"the guest's /proc", Mount{Type: Bind, Source: "/srv", Target: "/proc"}, "target: every guest needs its own /proc"},
		{"the guest's /dev", Mount{Type: Tmpfs, Target: "/dev"}, "target: every guest needs its own /dev"},
		{"a place in /dev", Mount{Type: Tmpfs, Target: "/dev/shm"}, "none /dev/shm tmpfs defaults 0 0"},
		{"another type", Mount{Type: "nfs", Source: "a:/b", Target: "/d"}, "type: want bind"},
		{"ids beyond the guest's", Mount{Type: Bind, Source: "/srv", Target: "/d", Options: []string{"idmap=uids=0-65536-1;gids=0-0-1"}}, "idmap: want uids="},
		{"ids that overlap", Mount{Type: Bind, Source: "/srv", Target: "/d", Options: []string{"idmap=uids=0-0-2#1-5-1;gids=0-0-1"}}, "idmap: two ranges"},
		{"ids of users alone", Mount{Type: Bind, Source: "/srv", Target: "/d", Options: []string{"idmap=uids=0-0-2"}}, "idmap: uids and gids"},
	} {
		t.Run(row.what, func(t *testing.T) {
			m, err := NewMount(row.mount)
			got := m.String()
			if err != nil {
				got = err.Error()
			}
			if got != row.want && (err == nil || !strings.HasPrefix(got, row.want)) {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

func TestDevicesAreCheckedAsAWhole(t *testing.T) {
	for text, want := range map[string]string{
		"/dev/fuse": "", "/dev/net/tun": "needs mode nat", "/dev/kvm:rw": "", "/dev/kvm:x": "access", "/dev/../etc": "want a path",
		"/etc/passwd": "want a path", "/dev/zero": "of its own", "/dev/sda:/dev/pts/0": "of its own", "/dev/a:/dev/b:/dev/c": "want a path", "": "want a path",
	} {
		d, err := ParseDevice(text)
		if err == nil {
			err = Guest{Devices: []Device{d}, Network: Network{Mode: Shared}}.Check()
		}
		if got := ""; want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v %s, want %q", text, err, got, want)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add("uids=1000-33-1#0-0-5;gids=1000-33-1", "/dev/a:/dev/b:r")
	f.Fuzz(func(t *testing.T, idmap, device string) {
		ParseIDMap(idmap)
		if d, err := ParseDevice(device); err == nil {
			if again, err := ParseDevice(d.String()); err != nil || again != d {
				t.Errorf("%q is %v, and read again %v, %v", device, d, again, err)
			}
		}
	})
}
