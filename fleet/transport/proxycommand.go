package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// dialDirectly returns how a host that is behind no jump host is reached.
func dialDirectly(s Settings) dialFunc {
	if s.ProxyCommand != "" {
		return func(context.Context, string, string) (net.Conn, error) { return startProxy(s.ProxyCommand) }
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{}
		if s.BindAddress != "" {
			local, err := net.DefaultResolver.LookupNetIP(ctx, "ip", s.BindAddress)
			if err != nil {
				return nil, &localError{fmt.Errorf("BindAddress %s: %w", s.BindAddress, err)}
			}
			d.LocalAddr = &net.TCPAddr{IP: local[0].AsSlice(), Zone: local[0].Zone()}
		}
		return d.DialContext(ctx, cmp.Or(s.Network, network), addr)
	}
}

// proxyConn is a connection to a process of this machine, which leads to the host.
type proxyConn struct {
	net.Conn // the other end is the standard input and output of the process
	command  string
	stderr   *LastLines
	ended    chan struct{}
	close    func() error
}

// proxyGrace is how long a proxy command may take to end when its connection has ended.
const proxyGrace = time.Second

// startProxy starts a proxy command in the user's shell, as ssh does.
func startProxy(command string) (net.Conn, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "proxy"), os.NewFile(uintptr(pair[1]), "proxy")
	defer theirs.Close()
	conn, err := net.FileConn(ours) // its own descriptor
	ours.Close()
	if err != nil {
		return nil, err
	}
	shell := cmp.Or(os.Getenv("SHELL"), "/bin/sh")
	cmd := exec.Command(shell, "-c", "exec "+command)
	cmd.Stdin, cmd.Stdout = theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for vsfleet
	p := &proxyConn{Conn: conn, command: command, stderr: new(LastLines), ended: make(chan struct{})}
	cmd.Stderr, cmd.WaitDelay = p.stderr, proxyGrace
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, &localError{fmt.Errorf("ProxyCommand %s: %w", command, err)}
	}
	go func() {
		_ = cmd.Wait() // how it ended is told by its standard error
		close(p.ended)
	}()
	p.close = sync.OnceValue(func() error {
		err := conn.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP) // it may have ended, as may all below
		go func() {
			select {
			case <-p.ended:
			case <-time.After(proxyGrace):
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
		}()
		return err
	})
	return p, nil
}

// Read reads from the command. If that ends before sshd has spoken, the error says what
// it printed: sshd did not drop the connection.
func (p *proxyConn) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return n, err
	}
	select {
	case <-p.ended:
	case <-time.After(proxyGrace):
		return n, err
	}
	return n, &proxyError{p.command, cmp.Or(p.stderr.String(), "it printed no reason")}
}

// proxyError reports that a proxy command ended before sshd did.
type proxyError struct{ command, stderr string }

func (e *proxyError) Error() string {
	return fmt.Sprintf("the ProxyCommand ended: %s (%s)", e.stderr, e.command)
}

func (p *proxyConn) Close() error { return p.close() }

// RemoteAddr returns an address that stands for any: known_hosts takes no other kind.
func (p *proxyConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero} }
