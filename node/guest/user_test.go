package guest

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

func opener(files map[string]string) func(string) (io.ReadCloser, error) {
	return func(path string) (io.ReadCloser, error) {
		s, ok := files[path]
		if !ok {
			return nil, os.ErrNotExist
		}
		return io.NopCloser(strings.NewReader(s)), nil
	}
}

func TestUserIsFoundInTheGuestsFiles(t *testing.T) {
	open := opener(map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www:/var/www:/bin/false\nbroken:x:1\nhuge:x:70000:1::/:/\n",
		"etc/group":  "root:x:0:\nadm:x:4:syslog,www-data\nssl:x:110:www-data\n",
	})
	for _, row := range []struct {
		what, user string
		want       procctx.User
		env        string
		err        string
	}{
		{"by name, with its groups", "www-data", procctx.User{UID: 33, GID: 33, Groups: []uint32{4, 110}}, "USER=www-data LOGNAME=www-data HOME=/var/www", ""},
		{"by id", "33", procctx.User{UID: 33, GID: 33, Groups: []uint32{4, 110}}, "USER=www-data LOGNAME=www-data HOME=/var/www", ""},
		{"an id without an entry", "1234", procctx.User{UID: 1234, GID: 1234}, "HOME=/", ""},
		{"nobody of that name", "nosuch", procctx.User{}, "", `no user "nosuch"`},
		{"an entry that is cut short", "broken", procctx.User{}, "", "no user"},
		{"an id that no guest has", "huge", procctx.User{}, "", "no user"},
		{"an id with a sign is a name", "+0", procctx.User{}, "", `no user "+0"`},
	} {
		t.Run(row.what, func(t *testing.T) {
			uid, numeric := number(row.user)
			u, err := findAccount(open, row.user, uid, numeric)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("error %v, want %q", err, row.err)
				}
				return
			}
			if d := cmp.Diff(row.want, u.User); err != nil || d != "" {
				t.Errorf("error %v, difference %s", err, d)
			}
			if env := strings.Join(u.environment(), " "); env != row.env {
				t.Errorf("environment %q, want %q", env, row.env)
			}
		})
	}
}

// TestUserFilesAreTheGuestsOwn: users are looked up as the host's root.
func TestUserFilesAreTheGuestsOwn(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "users", 124, "sleep", "1000")
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	if u, err := h.User(g.Name, "www"); err != nil || u.UID != 33 {
		t.Errorf("an honest guest: %+v, %v", u, err)
	}
	for _, row := range []struct{ what, command, want string }{
		{"a link to the host's kernel log", "busybox ln -sf /proc/kmsg /etc/passwd", "not on the guest's own filesystem"},
		{"the kernel log, bound", "busybox rm /etc/passwd && >/etc/passwd && busybox mount --bind /proc/kmsg /etc/passwd", "not on the guest's own filesystem"},
		{"a file of its /sys", "busybox umount /etc/passwd && busybox ln -sf /sys/kernel/notes /etc/passwd", "not on the guest's own filesystem"},
		{"a fifo", "busybox rm /etc/passwd && busybox mkfifo /etc/passwd", "no regular file"},
		{"a link to its own descriptors", "busybox ln -sf /proc/self/fd/0 /etc/passwd", "not on the guest's own filesystem"},
	} {
		if out, code := run(t, h, g.Name, "sh", "-c", row.command); code != 0 {
			t.Fatalf("%s: %s", row.what, out)
		}
		answer := make(chan error, 1)
		go func() {
			_, err := h.User(g.Name, "www")
			answer <- err
		}()
		select {
		case err := <-answer:
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: error %v, want %q", row.what, err, row.want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it still reads", row.what)
		}
	}
}
