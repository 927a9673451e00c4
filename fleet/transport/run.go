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

// runMark begins the line that precedes the output of a command. The line ends with
// the command's process group. It begins with a NUL, which no login shell prints.
const runMark = "\x00vsfleet-run-1 "

// runScript prints the line of runMark; the command is appended to it.
const runScript = `read -r p < /proc/$$/stat; p=${p##*) }; set -- $p; printf "\000vsfleet-run-1 %s\n" "$3"; c=$(printf "%b." "$0"); c=${c%.}; `

// Run runs a command to its end, as [Conn.Exec] does. When ctx ends, so does the
// command: sshd passes no signal on to a command of root's, so SIGTERM is sent to
// its process group by another session. What a login shell prints first is not
// part of stdout, and a command that did not begin is an error, whatever the status.
//
// One word is a line for the user's login shell, as with ssh, or for sh if Become
// is set. Several words are a program with its arguments, passed on unchanged.
func (c *Conn) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error) {
	line, shell := quoteArgs(argv), "sh" // another sh, as the $0 of this one, which its errors name, is the line
	if len(argv) == 1 {
		line = argv[0]
		if !c.settings.Become { // root's own may be nologin
			shell = `"${SHELL:-sh}"`
		}
	}
	return c.run(ctx, runScript+"exec "+shell+` -c "$c"`, line, stdin, stdout, stderr)
}

func (c *Conn) run(ctx context.Context, script, arg string, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error) {
	out := &markFilter{w: stdout}
	var last tail
	errs := io.Writer(&last)
	if stderr != nil {
		errs = io.MultiWriter(stderr, &last)
	}
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		c.terminate(context.WithoutCancel(ctx), out.group())
	})
	exit, err = c.Exec(ctx, Script(script, arg), stdin, out, errs)
	if !stop() {
		<-killed
	}
	if err == nil && out.group() == 0 {
		// A login shell that cannot parse the command may exit with status 0, too.
		output := cmp.Or(Printable(string(out.head)), Printable(last.String()), "nothing")
		err = fmt.Errorf("%s: the command did not begin (exit status %d), the host said: %q", c.settings, exit, output[max(0, len(output)-200):])
	}
	return exit, err
}

// killTimeout bounds the session that sends the signal.
const killTimeout = 5 * time.Second

// terminate sends SIGTERM to a process group. Its result is ignored, as the
// command's own session shows the effect.
func (c *Conn) terminate(ctx context.Context, group int) {
	if group <= 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	_, _ = c.Exec(ctx, Script(`kill -TERM "-$0"`, strconv.Itoa(group)), nil, nil, nil)
}

// maxChatter is how many bytes may precede our first line: enough for a message of
// the day, not for output without end.
const maxChatter = 64 << 10

// markFilter is a writer that drops everything up to and with the line of runMark.
type markFilter struct {
	w     io.Writer // nil: discarded
	head  []byte    // before the mark
	found bool
	pgrp  atomic.Int64
}

// group returns the process group of the line of runMark, or 0 before it has arrived.
func (m *markFilter) group() int {
	return int(m.pgrp.Load())
}

func (m *markFilter) Write(p []byte) (int, error) {
	if m.found {
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
			m.found, m.head = true, nil
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

func (m *markFilter) write(p []byte) (int, error) {
	if m.w == nil || len(p) == 0 {
		return len(p), nil
	}
	return m.w.Write(p)
}

func quoteArgs(argv []string) string {
	var line []string
	for _, word := range argv {
		line = append(line, Quote(word))
	}
	return strings.Join(line, " ")
}
