package guest

import (
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

// However a guest ends after its start is no longer watched, the next call knows it:
// one that has rebooted is started again, any other is not.
func TestHowAGuestHasEnded(t *testing.T) {
	h := host(t)
	for i, row := range []struct {
		name string
		by   string // the first time; later it stays
		end  string // "": it runs again
	}{
		{"it reboots", "busybox reboot -f", ""},
		{"it powers off", "busybox poweroff -f", "powered off from inside"},
		{"it halts", "busybox halt -f", "powered off from inside"},
		{"a service of it reboots", "(busybox reboot -f)& sleep 1000", ""},
		{"it ends", "exit 7", "exit status 7"},
		{"a container in it reboots", "busybox unshare -p -f -m --mount-proc busybox sh -c 'busybox reboot -f; sleep 1000'; exit 0", "exit status 0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := inMode(api.ModeShared, "reboots", 200+i, "sh", "-c", "[ -e /etc/again ] && exec sleep 1000; until ls /etc/now; do sleep 0.01; done 2>/dev/null; >/etc/again; "+row.by)
			configured(t, h, g, map[string]string{"nesting": "true\n"})
			must(t, h.Start(t.Context(), g.Name, Options{}))
			before, err := h.State(g.Name)
			must(t, err)
			_, cg, err := h.cgroup(g.Name)
			must(t, err)
			run(t, h, g.Name, "sh", "-c", ">/etc/now")
			must(t, cg.WaitEmpty(t.Context()))
			if st, err := h.State(g.Name); err != nil || st.Ended == nil || row.end != "" && st.Ended.String() != row.end {
				t.Errorf("before it is cleaned up after: %+v, %v", st.Ended, err)
			}
			if i%2 == 0 {
				must(t, h.Clean(t.Context()))
			} else {
				must(t, h.Wake(t.Context(), g.Name))
			}
			st, err := h.State(g.Name)
			must(t, err)
			switch {
			case row.end == "" && (st.Status != api.Running || st.Ended != nil || st.InitPID == before.InitPID):
				t.Errorf("it does not run again: %+v, %+v", st, st.Ended)
			case row.end != "" && (st.Status != api.Stopped || st.Ended == nil || st.Ended.String() != row.end):
				t.Errorf("it is %s, ended %+v", st.Status, st.Ended)
			}
		})
	}
}

// A guest that cannot be started again after a reboot is one that has ended, and no
// trouble to others.
func TestRebootIntoNothing(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeShared, "reboots", 210, "sh", "-c", "until ls /etc/now; do sleep 0.01; done 2>/dev/null; busybox reboot -f")
	configured(t, h, g, nil)
	must(t, h.Start(t.Context(), g.Name, Options{}))
	writeFiles(t, h, g.Name, map[string]string{"apps/init/style": "arch\n"})
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	run(t, h, g.Name, "sh", "-c", ">/etc/now")
	must(t, cg.WaitEmpty(t.Context()))
	must(t, h.Clean(t.Context()))
	st, err := h.State(g.Name)
	if err != nil || st.Ended == nil || !strings.HasPrefix(st.Ended.String(), "rebooted from inside, and not started again: its configuration") {
		t.Errorf("ended %+v, %v", st.Ended, err)
	}
}
