package transport

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// unreachableError is an error on the way to a host.
type unreachableError struct {
	err error
}

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// ErrorKind is an outcome.Kind, which package outcome asks errors for.
func (e *unreachableError) ErrorKind() string {
	var reason interface{ ErrorKind() string }
	if errors.As(e.err, &reason) {
		return reason.ErrorKind()
	}
	return "unreachable"
}

// Unreachable is what package outcome asks errors for.
func (e *unreachableError) Unreachable() bool { return true }

// Kinds of errors, as outcome.Kind.
const (
	kindDNS     = "dns"
	kindTCP     = "tcp"
	kindHostKey = "hostkey"
	kindAuth    = "auth"
	kindLost    = "lost"
	kindTimeout = "timeout"
	kindSudo    = "sudo"
)

// kindError is an error of a kind.
type kindError struct {
	kind string
	err  error
}

func (e *kindError) Error() string     { return e.err.Error() }
func (e *kindError) Unwrap() error     { return e.err }
func (e *kindError) ErrorKind() string { return e.kind }

// ofKind returns an error with a kind, as [fmt.Errorf] makes it.
func ofKind(kind, format string, args ...any) error {
	return &kindError{kind, fmt.Errorf(format, args...)}
}

// Unreachable reports whether err means that the host could not be reached, or was
// lost: name, route, port, timeout, host key, authentication, a lost connection.
// If not, the host was reached and could not do what it was asked.
func Unreachable(err error) bool {
	var u *unreachableError
	return errors.As(err, &u)
}

// localError is an error of this machine, which is the same for every host.
type localError struct {
	err error
}

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// ErrorKind is an outcome.Kind.
func (e *localError) ErrorKind() string { return "local" }

// Local reports whether err is an error of this machine, not of a host or of the
// way to it: a key file or known_hosts that cannot be read, no more files to open.
func Local(err error) bool {
	var l *localError
	return errors.As(err, &l)
}

// outOfFiles returns an error with the cure if err means that this machine has no
// resources for another connection, else nil. An error of a name lookup holds the
// cause only in its text.
func outOfFiles(err error) error {
	switch {
	case errors.Is(err, syscall.EMFILE), strings.Contains(err.Error(), syscall.EMFILE.Error()):
		return &localError{fmt.Errorf("%w on this machine: work on fewer hosts at once (--forks), or allow more (ulimit -n)", syscall.EMFILE)}
	case errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EADDRNOTAVAIL):
		return &localError{fmt.Errorf("this machine has no room for another connection: work on fewer hosts at once (--forks): %w", err)}
	}
	return nil
}

// SignalError reports that a signal ended a command.
type SignalError struct {
	Signal string // without SIG: "KILL"
}

func (e *SignalError) Error() string { return "ended by signal " + e.Signal }

// number returns the number of a signal that RFC 4254 names, or 0.
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

// Printable returns a host's text as one line without control characters, which
// could move the cursor and overwrite the output of other hosts.
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
