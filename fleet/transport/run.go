package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// runMark begins the line before the output of a command, which ends with the
// command's process group. It begins with a NUL, which no login shell prints.
const runMark = "\x00vsfleet-run-1 "

// runScript prints the mark and goes on with what it is put before.
const runScript = `read -r p < /proc/$$/stat; p=${p##*) }; set -- $p; printf "\000vsfleet-run-1 %s\n" "$3"; c=$(printf "%b." "$0"); c=${c%.}; `

// Run runs a command to its end, as [Conn.Exec] does, and ends it with ctx:
// sshd passes no signal on to a command of root's, so SIGTERM is sent to its
// process group by another session. What a login shell prints before is no part
// of stdout, and a command that did not begin is an error, whatever the status.
//
// One word is a line for the user's login shell, as with ssh, or with Become for
// sh; several are one program with its arguments, just as given.
func (c *Conn) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error) {
	if len(argv) == 1 {
		shell := `"${SHELL:-sh}"`
		if c.settings.Become {
			shell = "sh" // root's own may be nologin
		}
		return c.run(ctx, runScript+"exec "+shell+` -c "$c"`, argv[0], stdin, stdout, stderr)
	}
	return c.run(ctx, runScript+`eval "$c"`, words(argv), stdin, stdout, stderr)
}

func (c *Conn) run(ctx context.Context, script, arg string, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error) {
	out := &marked{w: stdout}
	var last tail
	errs := io.Writer(&last)
	if stderr != nil {
		errs = io.MultiWriter(stderr, &last)
	}
	killed := make(chan struct{})
	notInTime := context.AfterFunc(ctx, func() {
		defer close(killed)
		c.terminate(context.WithoutCancel(ctx), out.group())
	})
	exit, err = c.Exec(ctx, Script(script, arg), stdin, out, errs)
	if !notInTime() {
		<-killed
	}
	if err == nil && out.group() == 0 {
		// A login shell that cannot read the command ends with 0, too.
		said := cmp.Or(Printable(string(out.head)), Printable(last.String()), "nothing")
		err = fmt.Errorf("%s: the command did not begin (exit status %d), the host said: %q", c.settings, exit, said[max(0, len(said)-200):])
	}
	return exit, err
}

// killTimeout is how long a host may take to hear that a command is to end.
const killTimeout = 5 * time.Second

// terminate sends SIGTERM to a process group. Nobody waits for what comes of it:
// the session of the command tells that.
func (c *Conn) terminate(ctx context.Context, group int) {
	if group <= 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	_, _ = c.Exec(ctx, Script(`kill -TERM "-$0"`, strconv.Itoa(group)), nil, nil, nil)
}

// maxChatter is what may come before our first line: a message of the day, not
// the output of something that runs away.
const maxChatter = 64 << 10

// marked is a writer that throws away what comes before the line of runMark.
type marked struct {
	w    io.Writer // nil: nowhere
	head []byte    // before the mark
	done bool
	pgrp atomic.Int64
}

// group is the process group in the mark, or 0 before it has come.
func (m *marked) group() int {
	return int(m.pgrp.Load())
}

func (m *marked) Write(p []byte) (int, error) {
	if m.done {
		return m.write(p)
	}
	// The mark may begin in the last write and end in this one.
	m.head = append(m.head, p...)
	for rest := m.head; ; {
		i := bytes.Index(rest, []byte(runMark))
		if i < 0 {
			break
		}
		rest = rest[i+len(runMark):]
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if group, err := strconv.Atoi(string(line)); whole && err == nil && group > 0 {
			m.done, m.head = true, nil
			m.pgrp.Store(int64(group))
			if _, err := m.write(after); err != nil {
				return 0, err
			}
			return len(p), nil
		}
	}
	if len(m.head) > maxChatter {
		return 0, errors.New("the command did not begin within the first 64 KiB of output")
	}
	return len(p), nil
}

func (m *marked) write(p []byte) (int, error) {
	if m.w == nil || len(p) == 0 {
		return len(p), nil
	}
	return m.w.Write(p)
}

func words(argv []string) string {
	var line []string
	for _, word := range argv {
		line = append(line, Quote(word))
	}
	return strings.Join(line, " ")
}
