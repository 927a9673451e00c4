package transport

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// startMaster starts an ssh that shares its connection, and returns its socket.
func startMaster(t *testing.T, s *sshtest.Server) (socket string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "") // a socket's name must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "master")
	cmd := exec.Command("ssh", "-F", "none", "-M", "-S", socket, "-N", "-i", s.Identity, "-o", "UserKnownHostsFile="+s.KnownHosts,
		"-o", "IdentitiesOnly=yes", "-p", fmt.Sprint(s.Port), "root@127.0.0.1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	waitFor(t, "the master", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	return socket, stop
}

func TestAConnectionThatARunningSSHShares(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{Config: []string{"MaxSessions 4"}})
	socket, stop := startMaster(t, server)
	s := settings(server)
	s.ControlPath, s.KeepAlive = socket, 20*time.Millisecond
	c := dial(t, s)
	t.Run("no key is needed", func(t *testing.T) {
		t.Setenv("HOME", t.TempDir())
		s := s
		s.Identity = ""
		if err := dialer(t).Check(t.Context(), s); err != nil {
			t.Error(err)
		}
		dial(t, s)
	})
	text := strings.Repeat("0123456789", 1<<17)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			var out, errs bytes.Buffer
			exit, err := c.Exec(t.Context(), "cat; echo error >&2; exit 7", strings.NewReader(text), &out, &errs)
			if exit != 7 || err != nil || out.String() != text || errs.String() != "error\n" {
				t.Errorf("exit %d, error %v, %d bytes, stderr %q", exit, err, out.Len(), &errs)
			}
		})
	}
	all.Wait()
	if exit, err := c.Exec(t.Context(), "sleep 0.2", nil, nil, nil); exit != 0 || err != nil { // longer than the keepalive waits
		t.Errorf("exit %d, error %v", exit, err)
	}
	if rtt, err := c.RTT(t.Context()); err != nil || rtt <= 0 {
		t.Errorf("round trip %s, error %v", rtt, err)
	}
	if n := logins(server); n != 1 {
		t.Errorf("%d logins, want that of the master alone", n)
	}
	t.Run("sessions beyond MaxSessions take a connection of their own", func(t *testing.T) {
		for range 5 {
			p, err := c.Pipe(t.Context(), "cat")
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
		}
	})
	t.Run("hosts behind it", func(t *testing.T) {
		inner := sshtest.Start(t, sshtest.Options{})
		through := routeThrough(t, server, inner)
		through.Via.ControlPath, through.Via.Identity = socket, ""
		own, err := os.ReadFile(server.Identity + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(server.Dir, "authorized_keys"), string(own)+"\n")
		before := logins(server)
		if exit, err := dial(t, through).Exec(t.Context(), "true", nil, nil, nil); exit != 0 || err != nil {
			t.Errorf("exit %d, error %v", exit, err)
		}
		if n := logins(server); n != before {
			t.Errorf("%d more logins at the jump host", n-before)
		}
	})
	t.Run("its end", func(t *testing.T) {
		c := dial(t, s)
		p, err := c.Pipe(t.Context(), "sleep 100")
		if err != nil {
			t.Fatal(err)
		}
		stop()
		if _, err := p.Wait(t.Context()); !Unreachable(err) {
			t.Errorf("error %v", err)
		}
		before := logins(server)
		dial(t, s) // the socket is still there
		if n := logins(server); n != before+1 {
			t.Errorf("%d more logins", n-before)
		}
	})
	t.Run("a file that is no socket", func(t *testing.T) {
		s := s
		s.ControlPath = server.Identity
		dial(t, s)
	})
}
