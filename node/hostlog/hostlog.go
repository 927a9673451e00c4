// Package hostlog writes lines to the log of the host: to the socket /dev/log, which
// journald, rsyslog, syslog-ng and busybox's syslogd read (RFC 3164, as syslog(3) of
// glibc writes it), or, where no such daemon runs, to a file.
//
// It never waits for a daemon and returns no errors: a line that the host does not take
// is lost, and what was to be logged goes on.
package hostlog

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/printable"
)

// Log is the log of a host. The zero value takes no lines.
type Log struct {
	Socket string // /dev/log
	File   string // where there is no socket
}

const (
	// mostLine is the length of a line of RFC 3164.
	mostLine = 1024
	// mostFile is the size at which the file is renamed to .old.
	mostFile = 1 << 20
	// priority is facility daemon (3), severity notice (5): it is kept, and wakes nobody.
	priority = 3<<3 | 5
)

// Write writes a line for a program of this name.
func (l Log) Write(program, text string) {
	text = printable.Line(text)
	head := fmt.Sprintf("%s %s[%d]: ", time.Now().Format(time.Stamp), program, os.Getpid())
	if most := mostLine - len(head) - len("<29>"); len(text) > most {
		text = text[:most]
	}
	if l.Socket != "" && send(l.Socket, fmt.Sprintf("<%d>%s%s", priority, head, text)) == nil {
		return
	}
	if l.File != "" {
		l.append(time.Now().Format(time.RFC3339) + " " + text + "\n")
	}
}

// send sends a datagram, unless the receiver's queue is full.
func send(socket, text string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Sendto(fd, []byte(text), 0, &unix.SockaddrUnix{Name: socket})
	if err == unix.EAGAIN {
		return nil // it is there, and busy
	}
	return err
}

func (l Log) append(text string) {
	if info, err := os.Lstat(l.File); err == nil && info.Size() > mostFile {
		_ = os.Rename(l.File, l.File+".old")
	}
	if err := os.MkdirAll(filepath.Dir(l.File), 0o755); err != nil {
		return
	}
	f, err := os.OpenFile(l.File, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return
	}
	_, _ = f.WriteString(text)
	f.Close()
}
