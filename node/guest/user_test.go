package guest

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vsfleet/vsfleet/node/context"
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
		want       context.User
		err        string
	}{
		{"by name, with its groups", "www-data", context.User{UID: 33, GID: 33, Groups: []uint32{4, 110}}, ""},
		{"by id", "33", context.User{UID: 33, GID: 33, Groups: []uint32{4, 110}}, ""},
		{"an id without an entry", "1234", context.User{UID: 1234, GID: 1234}, ""},
		{"nobody of that name", "nosuch", context.User{}, `no user "nosuch"`},
		{"an entry that is cut short", "broken", context.User{}, "no user"},
		{"an id that no guest has", "huge", context.User{}, "no user"},
		{"an id with a sign is a name", "+0", context.User{}, `no user "+0"`},
	} {
		t.Run(row.what, func(t *testing.T) {
			uid, numeric := number(row.user)
			u, err := findUser(open, row.user, uid, numeric)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("error %v, want %q", err, row.err)
				}
				return
			}
			if d := cmp.Diff(row.want, u); err != nil || d != "" {
				t.Errorf("error %v, difference %s", err, d)
			}
		})
	}
}
