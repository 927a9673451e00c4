package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
)

// notifyingInit is this program as the init of a guest: it sends its arguments to
// NOTIFY_SOCKET, one after the other. Those that begin with "child:" are sent by a child.
const notifyingInit = "/bin/notifying-init"

func beNotifyingInit() {
	for _, text := range os.Args[1:] {
		text = strings.NewReplacer("|", "\n", "_", " ").Replace(text) // a guest's command can have neither at its ends
		if rest, ok := strings.CutPrefix(text, "child:"); ok {
			p, err := os.StartProcess("/bin/notifying-init", []string{notifyingInit, rest}, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr}})
			if err == nil {
				_, err = p.Wait()
			}
			if err != nil {
				fmt.Println(err)
			}
			continue
		}
		times := 1
		if rest, ok := strings.CutPrefix(text, "flood:"); ok {
			text, times = rest, maxNotes+10
		}
		for range times {
			if err := notify(text); err != nil {
				fmt.Println(err)
				break
			}
		}
	}
	if os.Getpid() == 1 {
		time.Sleep(time.Hour) // it is init: the test stops the guest
	}
}

// notify sends a message with a descriptor beside it.
func notify(text string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendmsg(fd, []byte(text), unix.UnixRights(0), &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, 0)
}

func TestReady(t *testing.T) {
	h := host(t)
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	tree, err := h.Tree(t.Context(), "", "")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(tree, notifyingInit), program, 0o755))
	for i, row := range []struct {
		name   string
		sends  []string
		ready  bool
		status string
	}{
		{"ready", []string{"READY=1"}, true, ""},
		{"ready among others, as systemd says it", []string{"STATUS=Starting", "READY=1|STATUS=Startup finished in 1s.|X_SYSTEMD_UNIT=basic.target|"}, true, "Startup finished in 1s."},
		{"not ready", []string{"STATUS=waiting for the database"}, false, "waiting for the database"},
		{"something like ready", []string{"READY=10", "xREADY=1", "READY=1_", "STATUS=READY=1"}, false, "READY=1"},
		{"a process beside init", []string{"child:READY=1", "STATUS=end"}, false, "end"},
		{"a status without end", []string{"STATUS=" + strings.Repeat("x", 3000)}, false, strings.Repeat("x", maxStatus)},
		{"a flood", []string{"flood:STATUS=flood", "READY=1"}, false, "flood"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := inMode(api.ModeShared, fmt.Sprint("notify", i), 160+i, append([]string{notifyingInit}, row.sends...)...)
			must(t, h.Create(t.Context(), g))
			defer func() { must(t, h.Delete(t.Context(), g.Name)) }()
			h.ExpectReady(g.Name)
			defer h.ForgetReady(g.Name)
			must(t, h.Start(t.Context(), g.Name, Options{}))
			var got Readiness
			for until := time.Now().Add(3 * time.Second); time.Now().Before(until); unix.Poll(nil, 2) {
				if got = h.Ready(g.Name); got.Ready == row.ready && got.Status == row.status {
					break
				}
			}
			if want := (Readiness{Started: true, Ready: row.ready, Status: row.status}); got != want {
				log := logOf(t, h, g.Name, 10)
				t.Errorf("got %+v, want %+v\n%s", got, want, log)
			}
		})
	}
}

// A guest that nobody waits for gets no socket; one that was started listening runs on
// when nobody listens any more.
func TestReadyIsForTheTimeOfAWait(t *testing.T) {
	h := host(t)
	g := inMode(api.ModeShared, "notify", 170, "sh", "-c", "echo to:$NOTIFY_SOCKET; exec sleep 1000")
	must(t, h.Create(t.Context(), g))
	env := func() string {
		t.Helper()
		_, cg, err := h.cgroup(g.Name)
		must(t, err)
		pid, err := cg.Init()
		must(t, err)
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		must(t, err)
		return string(b)
	}
	must(t, h.Start(t.Context(), g.Name, Options{}))
	if strings.Contains(env(), "NOTIFY_SOCKET") || h.Ready(g.Name) != (Readiness{}) {
		t.Error("nobody waits for this guest")
	}
	h.ExpectReady(g.Name)
	if h.Ready(g.Name).Started {
		t.Error("it was started before")
	}
	must(t, h.Restart(t.Context(), g.Name, Options{}))
	if !strings.Contains(env(), "NOTIFY_SOCKET="+notifySocket) || h.Ready(g.Name) != (Readiness{Started: true}) {
		t.Errorf("it was started while somebody waits: %+v", h.Ready(g.Name))
	}
	out, _ := run(t, h, g.Name, "sh", "-c", "ls -ln /dev/.notify; cat /proc/net/unix | grep -c notify")
	if !strings.HasPrefix(out, "srw-------    1 0        0") {
		t.Errorf("the socket is %q", out)
	}
	h.ForgetReady(g.Name)
	if on, err := h.Running(g.Name); !on || err != nil {
		t.Errorf("running: %v, %v", on, err)
	}
	if h.Ready(g.Name) != (Readiness{}) {
		t.Error("it is not forgotten")
	}
}
