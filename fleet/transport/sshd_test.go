package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// settings returns the settings that reach a server of sshtest.
func settings(s *sshtest.Server) Settings {
	return Settings{
		Name: "web1", Address: "127.0.0.1", Port: s.Port, Identity: s.Identity, KnownHosts: s.KnownHosts,
	}
}

// dialer returns a dialer that does not use the agent of whoever runs the tests.
func dialer(t *testing.T) *Dialer {
	t.Setenv("SSH_AUTH_SOCK", "")
	return new(Dialer)
}

func dial(t *testing.T, s Settings) *Conn {
	t.Helper()
	c, err := dialer(t).Dial(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestExec(t *testing.T) {
	c := dial(t, settings(sshtest.Start(t, sshtest.Options{})))
	for _, row := range []struct {
		name, command, in string
		exit              int
		out, err          string
	}{
		{name: "a command's output comes back", command: "echo hello", out: "hello\n"},
		{name: "standard error is apart", command: "echo no >&2", err: "no\n"},
		{name: "standard input goes there, and ends", command: "cat; echo end", in: "to and fro", out: "to and froend\n"},
		{name: "an exit status is no error", command: "exit 3", exit: 3},
		{name: "a command need not read its input", command: "exec true <&-", in: strings.Repeat("x", 4<<20)},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			exit, err := c.Exec(t.Context(), row.command, strings.NewReader(row.in), &out, &errs)
			if exit != row.exit || err != nil || out.String() != row.out || errs.String() != row.err {
				t.Errorf("exit %d, error %v, stdout %q, stderr %q", exit, err, &out, &errs)
			}
		})
	}
	t.Run("a signal is told", func(t *testing.T) {
		exit, err := c.Exec(t.Context(), "kill -KILL $$", nil, nil, nil)
		var signal *SignalError
		if exit != 137 || !errors.As(err, &signal) || signal.Signal != "KILL" || Unreachable(err) {
			t.Errorf("exit %d, error %v", exit, err)
		}
	})
	t.Run("megabytes go both ways at once", func(t *testing.T) {
		in := strings.Repeat("0123456789abcdef", 1<<19)
		var out bytes.Buffer
		if exit, err := c.Exec(t.Context(), "cat", strings.NewReader(in), &out, nil); exit != 0 || err != nil {
			t.Fatalf("exit %d, error %v", exit, err)
		}
		if out.String() != in {
			t.Errorf("%d bytes came back, not the %d sent", out.Len(), len(in))
		}
	})
	t.Run("a failing writer ends the command", func(t *testing.T) {
		full := errors.New("disk is full")
		_, err := c.Exec(t.Context(), "cat /dev/zero", nil, writerFunc(func([]byte) (int, error) { return 0, full }), nil)
		if !errors.Is(err, full) {
			t.Errorf("error %v, want the writer's", err)
		}
	})
	t.Run("a failing reader is not the end of input", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "complete")
		broken := errors.New("source is broken")
		in := io.MultiReader(strings.NewReader("half"), readerFunc(func([]byte) (int, error) { return 0, broken }))
		_, err := c.Exec(t.Context(), "cat; echo more || exit; touch "+file, in, nil, nil)
		if !errors.Is(err, broken) {
			t.Errorf("error %v, want the reader's", err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("the command took half of its input for all")
		}
	})
	t.Run("the connection is there after all that", func(t *testing.T) {
		if rtt, err := c.RTT(t.Context()); err != nil || rtt <= 0 {
			t.Errorf("round trip %s, error %v", rtt, err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestCancelledExec(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	c := dial(t, settings(server))
	for _, row := range []struct{ name, command string }{
		{"a command that reads sees the end of its input", "echo begun; cat; touch "},
		{"a command that writes fails to", "trap '' PIPE; echo begun; while echo more; do :; done; touch "},
		{"a command that does neither is left to itself", "echo begun; sleep 2; touch "},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			file := filepath.Join(t.TempDir(), "ended")
			stdin, _ := io.Pipe()
			out := writerFunc(func(p []byte) (int, error) {
				cancel()
				return len(p), nil
			})
			_, err := c.Exec(ctx, row.command+file, stdin, out, nil)
			if !errors.Is(err, context.Canceled) || Unreachable(err) {
				t.Errorf("error %v, want that it was cancelled", err)
			}
			if exit, err := c.Exec(t.Context(), "true", nil, nil, nil); exit != 0 || err != nil {
				t.Errorf("the next command: exit %d, error %v", exit, err)
			}
			waitFor(t, "the command to end", func() bool {
				_, err := os.Stat(file)
				return err == nil
			})
		})
	}
}

func TestLostHostIsUnreachable(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{})
	c := dial(t, settings(server))
	out := writerFunc(func(p []byte) (int, error) {
		server.Kill()
		return len(p), nil
	})
	exit, err := c.Exec(t.Context(), "echo begun; sleep 1000", nil, out, nil)
	if !Unreachable(err) || exit != -1 || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("exit %d, error %v", exit, err)
	}
	if _, err := c.Exec(t.Context(), "true", nil, nil, nil); !Unreachable(err) {
		t.Errorf("the next command: %v", err)
	}
}

func TestManyHandshakesAtAThrottledDoor(t *testing.T) {
	server := sshtest.Start(t, sshtest.Options{Config: []string{"MaxStartups 10:30:100"}})
	d := dialer(t)
	const n = 30
	errs := make(chan error, n)
	for range n {
		go func() {
			c, err := d.Dial(t.Context(), settings(server))
			if err == nil {
				defer c.Close()
				_, err = c.Exec(t.Context(), "true", nil, nil, nil)
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// BenchmarkConnectAndRun measures what a host costs the controller: connect,
// authenticate, one command, 64 hosts at once. The time is mostly sshd's; what
// counts is the CPU time of this process.
func BenchmarkConnectAndRun(b *testing.B) {
	b.Setenv("SSH_AUTH_SOCK", "")
	s := settings(sshtest.Start(b, sshtest.Options{Config: []string{"MaxStartups 500"}}))
	d := &Dialer{MaxHandshakes: 64}
	before := cpu(b)
	b.ResetTimer()
	var hosts errgroup.Group
	hosts.SetLimit(64)
	for range b.N {
		hosts.Go(func() error {
			c, err := d.Dial(b.Context(), s)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Exec(b.Context(), "true", nil, nil, nil)
			return err
		})
	}
	if err := hosts.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// cpu returns the CPU time of this process.
func cpu(b *testing.B) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
