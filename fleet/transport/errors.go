package transport

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// unreachable is an error of the way to a host.
type unreachable struct {
	err error
}

func (e *unreachable) Error() string { return e.err.Error() }
func (e *unreachable) Unwrap() error { return e.err }

// Unreachable says whether err is that the host could not be reached, or no
// longer: name, route, port, time, host key, authentication, a lost
// connection. False means that the host was there and could not do it.
func Unreachable(err error) bool {
	var u *unreachable
	return errors.As(err, &u)
}

// SignalError is that a command was ended by a signal.
type SignalError struct {
	Signal string // without SIG: "KILL"
}

func (e *SignalError) Error() string { return "ended by signal " + e.Signal }

// number of a signal of RFC 4254, or 0.
func (e *SignalError) number() int {
	switch ssh.Signal(e.Signal) {
	case ssh.SIGHUP:
		return 1
	case ssh.SIGINT:
		return 2
	case ssh.SIGQUIT:
		return 3
	case ssh.SIGILL:
		return 4
	case ssh.SIGABRT:
		return 6
	case ssh.SIGFPE:
		return 8
	case ssh.SIGKILL:
		return 9
	case ssh.SIGUSR1:
		return 10
	case ssh.SIGSEGV:
		return 11
	case ssh.SIGUSR2:
		return 12
	case ssh.SIGPIPE:
		return 13
	case ssh.SIGALRM:
		return 14
	case ssh.SIGTERM:
		return 15
	}
	return 0
}

// becomeError is what is wrong with sudo on a host, seen in what it wrote. sudo
// has no exit status of its own: it ends with 1, as the command may. It is
// empty where the command itself failed.
func becomeError(exit int, stderr string) error {
	if exit != 1 && exit != 127 {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	switch {
	case exit == 127 && strings.Contains(last, "sudo") && strings.Contains(last, "not found"):
		return errors.New("become root: sudo is not installed: install it, or log in as root")
	case exit != 1:
		return nil
	case strings.HasPrefix(last, "sudo: "), strings.HasPrefix(last, "sudo-rs: "),
		strings.HasPrefix(last, "Sorry, user "), strings.Contains(last, "is not in the sudoers file"):
		return fmt.Errorf("become root: %s (sudoers must let this user run anything without a password: USER ALL=(ALL) NOPASSWD: ALL)", Printable(last))
	}
	return nil
}

// Printable is text of a host made fit for a terminal and one line: control
// characters could move the cursor and rewrite what others said.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, strings.TrimSpace(s))
}
