package systemd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a systemd in this process: it answers calls as a test says.
type fake struct {
	t      *testing.T
	answer func(member string, args []string) (sig string, values []string, fails string, then []signal)
	mu     sync.Mutex
	calls  []string
}

type signal struct {
	member string
	sig    string
	values []any
}

// start has Dial connect to it.
func (f *fake) start() {
	f.t.Helper()
	old := private
	private = filepath.Join(f.t.TempDir(), "private")
	l, err := net.Listen("unix", private)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		l.Close()
		private = old
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
}

func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	// Nothing may come together with BEGIN: systemd would leave it lying there.
	const hello = "\x00AUTH EXTERNAL 30\r\nBEGIN\r\n"
	begun := make([]byte, len(hello))
	if _, err := io.ReadFull(in, begun); err != nil || string(begun) != hello || in.Buffered() > 0 {
		f.t.Errorf("it begins with %q and %d bytes more, %v", begun, in.Buffered(), err)
		return
	}
	io.WriteString(conn, "OK 0123456789abcdef0123456789abcdef\r\n")
	b := &bus{in: in}
	for serial := uint32(1); ; serial++ {
		m, err := b.read()
		if err != nil {
			return
		}
		args, err := m.values()
		if err != nil {
			f.t.Errorf("%s: %v", m.member, err)
		}
		f.mu.Lock()
		f.calls = append(f.calls, strings.Join(append([]string{m.member}, args...), " "))
		f.mu.Unlock()
		sig, values, fails, then := f.answer(m.member, args)
		if fails == "hang" {
			continue
		}
		if fails == "drop" {
			return
		}
		conn.Write(encode(methodReturn, serial, "", fails, sig, texts(values)))
		for _, s := range then {
			conn.Write(encode(signalSent, 0, s.member, "", s.sig, s.values))
		}
	}
}

func texts(list []string) (out []any) {
	for _, s := range list {
		out = append(out, s)
	}
	return out
}

// encode makes a message as systemd sends it.
func encode(kind byte, reply uint32, member, fails, sig string, values []any) []byte {
	if fails != "" {
		kind = methodError
	}
	var body, fields, m encoder
	for i, v := range values {
		switch v := v.(type) {
		case uint32:
			body.uint32(v)
		case string:
			if sig[i] == 'v' {
				body.signature("s")
			}
			body.text(v)
		}
	}
	if reply != 0 {
		fields.align(8)
		fields.b = append(fields.b, fieldReplySerial)
		fields.signature("u")
		fields.uint32(reply)
	}
	if member != "" {
		fields.field(fieldMember, "s", member)
	}
	if fails != "" {
		fields.field(fieldErrorName, "s", fails)
	}
	if sig != "" {
		fields.field(fieldSignature, "g", sig)
	}
	m.b = append(m.b, 'l', kind, 0, 1)
	m.uint32(uint32(len(body.b)))
	m.uint32(1)
	m.uint32(uint32(len(fields.b)))
	m.b = append(m.b, fields.b...)
	m.align(8)
	return append(m.b, body.b...)
}

const job = "/org/freedesktop/systemd1/job/7"

func removed(path, result string) signal {
	return signal{"JobRemoved", "uoss", []any{uint32(7), path, "vserver@www.service", result}}
}

func TestJobs(t *testing.T) {
	const unit = "vserver@www.service"
	for _, row := range []struct {
		what   string
		answer func(member string, args []string) (string, []string, string, []signal)
		want   string
		fails  string
	}{
		{"a job that is done", func(string, []string) (string, []string, string, []signal) {
			return "o", []string{job}, "", []signal{{"UnitNew", "so", []any{unit, "/x"}}, removed("/other", "canceled"), removed(job, "done")}
		}, "done", ""},
		{"a job that fails", func(string, []string) (string, []string, string, []signal) {
			return "o", []string{job}, "", []signal{removed(job, "failed")}
		}, "failed", ""},
		{"a unit that is not there", func(string, []string) (string, []string, string, []signal) {
			return "s", []string{"Unit vserver@www.service not loaded."}, "org.freedesktop.systemd1.NoSuchUnit", nil
		}, "", "systemd: Unit vserver@www.service not loaded."},
		{"a systemd that executes itself anew", func(member string, _ []string) (string, []string, string, []signal) {
			switch member {
			case Start:
				return "o", []string{job}, "", []signal{{"Reloading", "", nil}}
			case "GetUnit":
				return "o", []string{"/u"}, "", nil
			}
			return "v", []string{"active"}, "", nil
		}, "done", ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			f := &fake{t: t}
			dropped := false
			f.answer = func(member string, args []string) (string, []string, string, []signal) {
				return row.answer(member, args)
			}
			f.start()
			m, err := Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if strings.Contains(row.what, "anew") && !dropped {
				go func() {
					time.Sleep(50 * time.Millisecond) // the call is answered, and its job never ends
					m.bus.conn.Close()
				}()
			}
			got, err := m.Run(t.Context(), Start, unit)
			if got != row.want || (err == nil) != (row.fails == "") || err != nil && err.Error() != row.fails {
				t.Errorf("got %q, %v; want %q, %q", got, err, row.want, row.fails)
			}
			if row.fails != "" && !IsNotLoaded(err) {
				t.Errorf("%v is not a unit that is not loaded", err)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.calls[0] != "StartUnit vserver@www.service replace" {
				t.Errorf("it calls %q", f.calls)
			}
		})
	}
}

func TestAWaitForAJobEndsWithItsContext(t *testing.T) {
	f := &fake{t: t, answer: func(string, []string) (string, []string, string, []signal) { return "o", []string{job}, "", nil }}
	f.start()
	m, err := Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.Run(ctx, Stop, "vserver@www.service"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestProperty(t *testing.T) {
	f := &fake{t: t, answer: func(member string, args []string) (string, []string, string, []signal) {
		if member == "GetUnit" {
			return "o", []string{"/org/freedesktop/systemd1/unit/x"}, "", nil
		}
		return "v", []string{"exit-code"}, "", nil
	}}
	f.start()
	m, err := Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got, err := m.Property(t.Context(), "vserver@www.service", "Service", "Result"); got != "exit-code" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestUnitsAreReadAgainIfOneIsKnownAsItWas(t *testing.T) {
	for _, row := range []struct {
		what, needs string
		reloads     int
	}{{"as it is", "0", 0}, {"as it was", "1", 1}, {"not at all", "", 0}} {
		t.Run(row.what, func(t *testing.T) {
			f := &fake{t: t, answer: func(member string, args []string) (string, []string, string, []signal) {
				switch {
				case member == "Reload":
					return "", nil, "", nil
				case member == "Get":
					return "v", []string{row.needs}, "", nil
				case row.needs == "":
					return "s", []string{"not loaded"}, "org.freedesktop.systemd1.NoSuchUnit", nil
				}
				return "o", []string{"/u"}, "", nil
			}}
			f.start()
			m, err := Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			reloads := 0
			if err := m.Refresh(t.Context(), func(call func() error) error { reloads++; return call() }, "vserver@www.service"); err != nil || reloads != row.reloads {
				t.Errorf("%d reloads, %v", reloads, err)
			}
		})
	}
}

func TestASystemdThatIsNotThere(t *testing.T) {
	old := private
	private = filepath.Join(t.TempDir(), "private")
	defer func() { private = old }()
	if _, err := Dial(t.Context()); !errors.Is(err, ErrAbsent) {
		t.Errorf("error %v", err)
	}
}

// Whatever comes over the socket, reading it neither fails in the runtime nor takes
// more memory than it has bytes.
func FuzzMessage(f *testing.F) {
	f.Add(encode(methodReturn, 3, "", "", "o", []any{job}))
	f.Add(encode(signalSent, 0, "JobRemoved", "", "uoss", []any{uint32(7), job, "a", "done"}))
	f.Add(encode(methodReturn, 3, "", "no", "v", []any{"x"}))
	big := encode(methodReturn, 3, "", "", "s", []any{"x"})
	binary.LittleEndian.PutUint32(big[4:], 1<<31)
	f.Add(big)
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &bus{in: bufio.NewReader(strings.NewReader(string(b)))}
		m, err := in.read()
		if err != nil {
			return
		}
		if values, err := m.values(); err == nil && len(values) > len(m.body)+len(m.sig) {
			t.Errorf("%q has values %q", b, values)
		}
	})
}
