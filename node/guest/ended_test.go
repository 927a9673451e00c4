package guest

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

func TestStartTellsOfAGuestThatEndsAtOnce(t *testing.T) {
	for _, row := range []struct {
		name   string
		script string
		end    string // the recorded end; "": it keeps running
		said   string // its last line of output
	}{
		{"a command that goes on", "exec sleep 1000", "", ""},
		{"a command that fails", "echo starting; echo no such option >&2; exit 3", "exit status 3", "no such option"},
		{"a command that is done", "true", "exit status 0", ""},
		{"a command that fails a little later", "sleep 0.2; exit 1", "exit status 1", ""},
		{"an escape sequence in the last line", `printf 'bad \033]0;title\007 line\n\n'; exit 1`, "exit status 1", "bad ?]0;title? line"},
		{"a command that calls reboot", "busybox reboot -f", "rebooted from inside", ""},
		{"a command that powers off", "busybox poweroff -f", "powered off from inside", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx := context.Background()
			h := host(t)
			h.WatchStarts = true
			if row.end != "" { // on a busy machine too
				usual := watchCommand
				watchCommand = 10 * time.Second
				defer func() { watchCommand = usual }()
			}
			before := traces(t)
			g := inMode(api.ModeOwn, "settles", 110, "sh", "-c", row.script)
			must(t, h.Create(ctx, g))
			settling := false
			err := h.Start(ctx, g.Name, Options{OnRunning: func() { settling = true }})
			st, serr := h.State(g.Name)
			must(t, serr)
			if !settling {
				t.Error("it was not said that the guest is only watched")
			}
			if row.end == "" {
				if err != nil || st.Status != api.Running || st.Ended != nil {
					t.Errorf("start: %v, state %+v", err, st)
				}
				return
			}
			var ended *EndedError
			if !errors.As(err, &ended) || ended.End.String() != row.end || ended.End.LastOutput != row.said || !strings.Contains(err.Error(), row.end) {
				t.Errorf("start: %v, %+v", err, ended)
			}
			if st.Status != api.Stopped || st.Ended == nil || !st.Ended.Seen || st.Ended.String() != row.end || st.Ended.LastOutput != row.said {
				t.Errorf("state %+v, ended %+v", st, st.Ended)
			}
			if after := traces(t); after != before {
				t.Errorf("left over:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

// If a guest ends after its start is no longer watched, the next call records what can
// still be seen, and a stop or a start removes the record.
func TestLaterEndIsRemembered(t *testing.T) {
	ctx := context.Background()
	h := host(t)
	g := inMode(api.ModeShared, "later", 111, "sh", "-c", "read line; echo out of ideas; exit 1")
	must(t, h.Create(ctx, g))
	// It waits at its standard input, which reaches its end: it ends by itself.
	must(t, h.Start(ctx, g.Name, Options{}))
	_, cg, err := h.cgroup(g.Name)
	must(t, err)
	must(t, cg.WaitEmpty(ctx))
	check := func(when string) {
		t.Helper()
		st, err := h.State(g.Name)
		must(t, err)
		if e := st.Ended; e == nil || e.String() != "exit status 1" || e.LastOutput != "out of ideas" || time.Since(e.Time) > time.Minute {
			t.Errorf("%s: ended %+v", when, e)
		}
	}
	check("before it was cleaned up")
	must(t, h.Sweep(ctx))
	check("after it was cleaned up")
	if outcome, err := h.Stop(ctx, g.Name); err != nil || outcome != api.Unchanged {
		t.Errorf("stop: %v, %v", outcome, err)
	}
	check("after a stop that found it ended")

	g.Init.Command = []string{"sleep", "1000"}
	_, err = h.Configure(ctx, g)
	must(t, err)
	must(t, h.Start(ctx, g.Name, Options{}))
	_, err = h.Stop(ctx, g.Name)
	must(t, err)
	if st, err := h.State(g.Name); err != nil || st.Ended != nil {
		t.Errorf("after a stop: %+v, %v", st.Ended, err)
	}
	must(t, h.Delete(ctx, g.Name))
	if _, err := os.Lstat(h.endFile(g.Name)); err == nil {
		t.Error("a deleted guest's end is still remembered")
	}
}

func TestEndIsSaidAsItWas(t *testing.T) {
	for _, row := range []struct {
		end  api.End
		text string
	}{
		{api.End{}, "ended by itself"},
		{api.End{OOMKills: 2}, "ended by itself, out of memory: 2 processes killed"},
		{api.End{Seen: true, Status: 1}, "exit status 1"},
		{api.End{Seen: true, Signal: unix.SignalName(unix.SIGSEGV)}, "killed by SIGSEGV"},
		{api.End{Seen: true, Signal: "SIGKILL", OOMKills: 1}, "killed by SIGKILL, out of memory: 1 processes killed"},
	} {
		if got := row.end.String(); got != row.text {
			t.Errorf("%+v is %q, want %q", row.end, got, row.text)
		}
	}
}
