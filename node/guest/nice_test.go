package guest

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// The host sees the nice value of a guest's processes, and the guest cannot lower it.
func TestNiceOfAGuest(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "nice", 125, "sleep", "1000")
	g.Nice = 5
	must(t, h.Create(ctx, g))
	must(t, h.Start(ctx, g.Name, Options{}))
	nice := func() int {
		t.Helper()
		st, err := h.State(g.Name)
		must(t, err)
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, st.InitPID)
		must(t, err)
		return 20 - raw // getpriority(2), "C library/kernel differences"
	}
	if n := nice(); n != 5 {
		t.Errorf("process 1 has nice %d, want 5", n)
	}
	for _, row := range []struct{ what, script, want string }{
		{"what exec starts", "cut -d' ' -f19 /proc/self/stat", "5"},
		{"a worse one may be taken", "busybox renice -n 3 $$ && cut -d' ' -f19 /proc/self/stat", "8"},
		{"a better one may not", "busybox renice -n -1 $$ 2>/dev/null || cut -d' ' -f19 /proc/self/stat", "5"},
	} {
		if out, _ := run(t, h, g.Name, "/bin/sh", "-c", row.script); out != row.want {
			t.Errorf("%s: %q, want %q", row.what, out, row.want)
		}
	}

	g.Nice = -7
	outcome, err := h.Configure(ctx, g)
	must(t, err)
	st, err := h.State(g.Name)
	must(t, err)
	if outcome != api.Changed || st.Nice != -7 || st.Runs == nil || st.Runs.Nice != 5 || nice() != 5 {
		t.Errorf("configured: %s, state %+v, process 1 has nice %d; want a restart to be missing", outcome, st, nice())
	}
	_, err = h.Stop(ctx, g.Name)
	must(t, err)
	must(t, h.Start(ctx, g.Name, Options{}))
	if st, err = h.State(g.Name); err != nil || st.Runs != nil || nice() != -7 {
		t.Errorf("started again: state %+v, %v, process 1 has nice %d, want -7", st, err, nice())
	}

	// Older vsnodes noted it only among the settings for programs that enter.
	n, err := h.readNotes(g.Name)
	must(t, err)
	n.Runs.Nice = 0
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, h.writeNotes(g.Name, cg, n))
	if st, err = h.State(g.Name); err != nil || st.Runs != nil {
		t.Errorf("started by an older vsnode: %+v, %v", st, err)
	}

	g.Nice = 0
	_, err = h.Configure(ctx, g)
	must(t, err)
	if _, err := os.Stat(h.config(g.Name) + "/nice"); !os.IsNotExist(err) {
		t.Errorf("the file nice is there still: %v", err)
	}
}
