package guest

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/probe"
)

// A guest's uptime counts from its start, for process 1 and for what enters, and the
// start times of its processes are right by it.
func TestUptimeOfAGuest(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "uptime", 126, "sleep", "1000")
	must(t, h.Create(ctx, g))
	before := linux.SinceBoot()
	must(t, h.Start(ctx, g.Name, Options{}))
	st, err := h.State(g.Name)
	must(t, err)
	ns := func(pid string) string {
		t.Helper()
		link, err := os.Readlink("/proc/" + pid + "/ns/time")
		must(t, err)
		return link
	}
	init, host := ns(strconv.Itoa(st.InitPID)), ns("self")
	if err := probe.Want(probe.TimeNamespaces); err != nil { // Debian 12's kernel
		if init != host {
			t.Errorf("process 1 is in %s, not in the host's %s, though: %v", init, host, err)
		}
		return
	}
	if init == host {
		t.Errorf("process 1 has the host's clocks (%s)", host)
	}
	if out, _ := run(t, h, g.Name, "/bin/sh", "-c", "busybox readlink /proc/self/ns/time"); out != init {
		t.Errorf("a program that enters is in %s, process 1 in %s", out, init)
	}
	out, _ := run(t, h, g.Name, "/bin/cat", "/proc/uptime")
	seconds, err := strconv.ParseFloat(strings.Fields(out)[0], 64)
	must(t, err)
	if up, most := time.Duration(seconds*1e9), linux.SinceBoot()-before+time.Second; up < 0 || up > most {
		t.Errorf("the guest has been up for %v, want %v at most", up, most)
	}
	out, _ = run(t, h, g.Name, "/bin/sh", "-c", "cut -d' ' -f22 /proc/1/stat")
	if ticks, err := strconv.Atoi(out); err != nil || ticks < 0 || ticks > 200 {
		t.Errorf("process 1 began %s hundredths of a second after the guest, want 0 to 200 (%v)", out, err)
	}
}
