package procctx

import (
	"context"
	"testing"
)

func TestAGuestCannotLiftTheFlagsOfItsMounts(t *testing.T) {
	sp, cg := guest(t, 676, "sleep", "1000")
	p, err := Start(context.Background(), sp)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ what, command, want string }{
		{"devices of its root", "mount -o remount,bind,dev / 2>/dev/null && echo lifted || echo locked", "locked"},
		{"devices of a copy of its root", "mkdir /tmp/c && mount -o bind / /tmp/c && { mount -o remount,bind,dev /tmp/c 2>/dev/null && echo lifted || echo locked; }", "locked"},
		{"its /sys", "mount -o remount,bind,rw /sys 2>/dev/null && echo lifted || echo locked", "locked"},
		{"more flags may be set", "mount -o remount,bind,nosuid,nodev / && grep -c ' / / .*nosuid,nodev' /proc/self/mountinfo", "1"},
		{"what it mounts itself is its own", "mkdir /tmp/d && mount -t tmpfs none /tmp/d 2>&1 && mount -o remount,bind,ro /tmp/d && mount -o remount,bind,rw /tmp/d && touch /tmp/d/x && echo written", "written"},
		{"nothing propagates from the host", "grep -c master: /proc/self/mountinfo", "0"},
	} {
		if got, _ := output(t, p, sp, cg, row.command); got != row.want {
			t.Errorf("%s: %s: got %q, want %q", row.what, row.command, got, row.want)
		}
	}
}
