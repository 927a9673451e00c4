package lab

import (
	"strings"
	"testing"
)

func TestReachable(t *testing.T) {
	for _, row := range []struct {
		name, conf, want string
		usable           bool
	}{
		{"a plain one is kept", "search x\nnameserver 192.0.2.1\n", "search x\nnameserver 192.0.2.1\n", true},
		{"systemd-resolved's stub is not for others", "nameserver 127.0.0.53\noptions edns0\n", "options edns0\n", false},
		{"IPv6 does not lead out of the lab", "nameserver 2001:db8::1\nnameserver 192.0.2.1", "nameserver 192.0.2.1", true},
		{"what is no address is dropped", "nameserver x\nnameserver\n", "nameserver\n", false},
		{"an empty file", "", "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got, usable := reachable(row.conf); got != row.want || usable != row.usable {
				t.Errorf("got %q, %v", got, usable)
			}
		})
	}
}

func FuzzReachable(f *testing.F) {
	f.Add("search x\nnameserver 192.0.2.1\n")
	f.Add("nameserver 127.0.0.53")
	f.Fuzz(func(t *testing.T, conf string) {
		got, usable := reachable(conf)
		again, stillUsable := reachable(got)
		if again != got || usable != stillUsable || len(got) > len(conf) || usable && !strings.Contains(got, "nameserver") {
			t.Errorf("%q became %q, then %q", conf, got, again)
		}
	})
}
