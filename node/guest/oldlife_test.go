package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// A guest as util-vserver had it: a private root, and what its tree asks for.
func TestOldGuestRunsAsItsTreeSays(t *testing.T) {
	h := host(t)
	base, err := os.MkdirTemp("/var/lib", "vsfleet-old-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(base)) })
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	root := base + "/vservers/old"
	must(t, errors.Join(os.Mkdir(base+"/vservers", 0o700), os.Rename(tree, root)))
	must(t, os.Chmod(base, 0o711))
	for _, dir := range []string{root + "/var/lib/db", root + "/sbin", base + "/db", base + "/secret"} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	must(t, errors.Join(
		os.WriteFile(base+"/db/table", []byte("rows\n"), 0o600), os.Chown(base+"/db/table", 33, 33),
		os.WriteFile(base+"/secret/key", []byte("secret\n"), 0o644),
		os.Symlink(base+"/secret", base+"/vservers/link"), os.Symlink("/etc", root+"/srv"),
		os.WriteFile(root+"/etc/hostname", []byte("mine\n"), 0o644),
		os.MkdirAll(h.ConfigDir+"/.defaults", 0o755), os.Symlink(base+"/vservers", h.ConfigDir+"/.defaults/vdirbase")))
	plant(t, h.Paths, "old", map[string]string{
		"netns/nat": "", "apps/init/cmd.start": "/bin/sh\n-c\nsleep 1000 & wait\n", "apps/init/environment": "LANG=C.old\n",
		"uts/domainname": "old.example\n", "nice": "-3\n", "ulimits/nofile": "300\n", "ulimits/core.hard": "5000\n",
		"badness": "400\n", "ionice/class": "3\n", "personality": "LINUX\nUNAME26\n",
		"sysctl/0/setting": "kernel.shmmax\n", "sysctl/0/value": "12345\n", "scripts/pre-start": "#!/bin/sh\necho hooked\n",
		"fstab": "none /proc proc defaults 0 0\nnone /tmp tmpfs size=1m,mode=1777 0 0\n" + base + "/db /var/lib/db none bind 0 0\n" +
			"tmpfs /srv tmpfs size=1m 0 0\n",
	})
	ctx := context.Background()
	// Its files have the tag of a context that it has no more.
	must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		st := lstat(t, path)
		return errors.Join(err, os.Lchown(path, int(st.Uid|1234<<16), int(st.Gid)))
	}))
	var changes []string
	outcome, err := h.Adopt(ctx, "old", Adoption{Agree: func(p AdoptionPlan) (bool, error) { changes = p.Changes; return true, nil }})
	if err != nil || outcome != api.Changed || len(changes) != 1 || !strings.Contains(changes[0], "tag 1234 in the user ids") {
		t.Fatalf("taken over: %v, %v, %q", outcome, err, changes)
	}
	var warned []string
	must(t, h.Start(ctx, "old", Options{Warn: func(s string) { warned = append(warned, s) }}))
	st, err := h.State("old")
	must(t, err)
	if st.Context < api.FirstAutoContext || st.Context > api.LastAutoContext {
		t.Errorf("context is %d, want an automatic one", st.Context)
	}
	if said := strings.Join(warned, "\n"); !strings.Contains(said, "pre-start: hooked") ||
		!strings.Contains(said, "fstab:3: users of this host can reach "+base+"/db") {
		t.Errorf("said %q", said)
	}
	for _, row := range []struct{ what, script, want string }{
		{"its files are root's", "stat -c %u:%g / /bin /bin/busybox | sort -u", "0:0\n"},
		{"the database is there, with its owner", "cat /var/lib/db/table; stat -c %u /var/lib/db/table", "rows\n33\n"},
		{"and written to", "echo more >> /var/lib/db/table", ""},
		{"a tmpfs", "grep ' /tmp ' /proc/mounts | cut -d' ' -f3; stat -c %a /tmp", "tmpfs\n1777\n"},
		{"a place that is a link leads into the guest", "grep -c ' /etc tmpfs' /proc/mounts", "1\n"},
		{"the host name is the guest's", "hostname; cat /proc/sys/kernel/hostname", "old\nold\n"},
		{"NIS domain", "cat /proc/sys/kernel/domainname", "old.example\n"},
		{"badness", "cat /proc/1/oom_score_adj /proc/self/oom_score_adj", "400\n400\n"},
		{"the class of input and output", "busybox ionice -p 1; busybox ionice -p $$", "idle\nidle\n"},
		{"a personality", "uname -r | cut -d. -f1,2; cat /proc/1/personality", "2.6\n00020000\n"},
		{"a sysctl", "cat /proc/sys/kernel/shmmax", "12345\n"},
		{"limits of init", "grep 'open files' /proc/1/limits | tr -s ' ' | cut -d' ' -f4,5", "300 300\n"},
		{"limits of what exec starts", "ulimit -n; ulimit -Hc", "300\n9\n"},
		{"nice of init", "cut -d' ' -f19 /proc/1/stat", "-3\n"},
		{"nice of what exec starts", "cut -d' ' -f19 /proc/self/stat", "-3\n"},
		{"the mounts of others are not there", "grep -c secret /proc/mounts; true", "0\n"},
		{"the environment", "tr '\\0' '\\n' < /proc/1/environ | grep LANG", "LANG=C.old\n"},
	} {
		out, code := run(t, h, "old", "/bin/sh", "-c", row.script)
		if code != 0 || out != strings.TrimSpace(row.want) {
			t.Errorf("%s: %q (%d), want %q", row.what, out, code, row.want)
		}
	}
	if b, err := os.ReadFile(base + "/db/table"); err != nil || string(b) != "rows\nmore\n" {
		t.Errorf("the host's table says %q (%v)", b, err)
	}
	if b, err := os.ReadFile(root + "/etc/hostname"); err != nil || string(b) != "mine\n" {
		t.Errorf("/etc/hostname was overwritten: %q (%v)", b, err)
	}
	_, err = h.Stop(ctx, "old")
	must(t, err)

	for _, row := range []struct{ what, file, content, want string }{
		{"a link on the way to the source", "fstab", base + "/vservers/link /var/lib/db none bind 0 0\n", "fstab:1: " + base + "/vservers/link leads over a symbolic link"},
		{"a place below a file", "fstab", "# x\nnone /etc/hostname/x tmpfs defaults 0 0\n", "make /etc/hostname/x (fstab:2): not a directory"},
		{"a directory onto a file", "fstab", base + "/db /etc/hostname none bind 0 0\n", "a directory goes onto a directory"},
		{"a sysctl that no guest may write", "sysctl/0/setting", "kernel.panic\n", "open /proc/sys/kernel/panic (sysctl/0/setting): "},
		{"a mount that cannot be", "fstab", "/dev/sda1 /var ext4 defaults 0 2\n", "fstab:1: guests do not mount filesystems of type ext4"},
		{"ids of a filesystem that has no others", "fstab", "/proc/sys /x none bind 0 0\n", "fstab:1: "},
	} {
		t.Run(row.what, func(t *testing.T) {
			before, err := os.ReadFile(filepath.Join(h.config("old"), row.file))
			must(t, err)
			plant(t, h.Paths, "old", map[string]string{row.file: row.content})
			defer plant(t, h.Paths, "old", map[string]string{row.file: string(before)})
			if err := h.Start(ctx, "old", Options{}); err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("start says %v, want %q in one line", err, row.want)
			}
			if on, err := h.Running("old"); err != nil || on {
				t.Errorf("it runs (%v)", err)
			}
		})
	}
	// What is refused can be ignored, by the administrator's own entry.
	plant(t, h.Paths, "old", map[string]string{"personality": "LINUX32\n", "ignore": "personality\n"})
	must(t, h.Start(ctx, "old", Options{}))
	_, err = h.Stop(ctx, "old")
	must(t, errors.Join(err, os.RemoveAll(h.config("old"))))
}

// A guest without a configured host name gets its own name, both for process 1 and for
// programs that enter, and what it writes to /etc/hostname stays.
func TestHostNameIsTheGuestsName(t *testing.T) {
	ctx := context.Background()
	for _, mode := range []api.Mode{api.ModeShared, api.ModeOwn, api.ModeNAT} {
		t.Run(string(mode), func(t *testing.T) {
			h := host(t)
			g := inMode(mode, "named-"+string(mode), 130, "sh", "-c", "hostname >/said; exec sleep 1000")
			must(t, h.Create(ctx, g))
			if b, err := os.ReadFile(filepath.Join(h.rootDir(g.Name), "etc/hostname")); err != nil || string(b) != g.Name+"\n" {
				t.Errorf("/etc/hostname is %q (%v)", b, err)
			}
			must(t, os.WriteFile(filepath.Join(h.rootDir(g.Name), "etc/hostname"), []byte("mine\n"), 0o644))
			must(t, h.Start(ctx, g.Name, Options{}))
			out, code := run(t, h, g.Name, "sh", "-c", "while ! test -s /said; do sleep 0.01; done; cat /said /proc/sys/kernel/hostname; hostname; cat /etc/hostname")
			if want := strings.Repeat(g.Name+"\n", 3) + "mine"; code != 0 || out != want {
				t.Errorf("host name: %q (%d), want %q", out, code, want)
			}
		})
	}
}
