package fakesshd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/node/api"
)

// Phase is a moment of a connection.
type Phase string

// Phases, in the order in which a connection goes through them.
const (
	Connected    Phase = "connected"    // before the version
	Handshake    Phase = "handshake"    // after the version and the list of algorithms
	Authenticate Phase = "authenticate" // the client has shown its key
	Session      Phase = "session"      // a session is asked for
	Command      Phase = "command"      // a session's command is asked for
	Running      Phase = "running"      // the command has begun, and printed something
	Request      Phase = "request"      // vsnode has greeted, and read a request
)

// Phases returns all phases in order.
func Phases() []Phase {
	return []Phase{Connected, Handshake, Authenticate, Session, Command, Running, Request}
}

// Fault is what a server does when a connection reaches a phase.
type Fault string

// Faults.
const (
	Hang  Fault = "hang"  // nothing more is sent
	Close Fault = "close" // the connection is closed
	Reset Fault = "reset" // it is closed by a TCP reset
)

// Startups are the bounds of connections that are not authenticated yet, as in
// sshd_config(5), MaxStartups. The zero value is no bound.
type Startups struct{ Begin, Rate, Full int }

// Options say how a server misbehaves. The zero value is an sshd that behaves.
type Options struct {
	Listen string // address; default 127.0.0.1 and any port
	Seed   uint64 // of the random drops

	At    Phase // where Fault happens
	Fault Fault
	First int // only the first connections have the fault; 0: all

	MaxStartups     Startups
	AuthPenalty     time.Duration // for an address whose authentication failed
	Chatter         string        // sent before the version
	WrongHostKey    bool          // the key shown is not that of KnownHosts
	RefuseSessions  string        // refuse all with this message
	MaxSessions     int           // at once on one connection; 0: no bound
	Forward         bool          // serve as a jump host
	Prompt          string        // printed by the login shell before every command
	AuthorizedOther bool          // authorized_keys has another key than Identity

	State *api.State // of the host that Vsnode answers for; nil: it has no guests

	// Exec runs a command and returns its exit status. Default: [Server.Vsnode].
	Exec func(s *Server, command string, ch ssh.Channel) uint32
}

// Server is a server that listens.
type Server struct {
	Port       int
	HostKey    ssh.Signer // as KnownHosts has it
	Identity   string     // a key file with which one can log in
	KnownHosts string     // a known_hosts file

	Connections, Dropped, Logins, Sessions atomic.Int64

	options  Options
	dir      string
	listener net.Listener
	config   *ssh.ServerConfig
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu       sync.Mutex
	random   *mrand.Rand
	startups int // connections that are not authenticated
	penalty  time.Time
	conns    map[net.Conn]bool
}

// Start starts a server. dir is for its keys and its known_hosts; keys that are
// there are used again.
func Start(dir string, o Options) (*Server, error) {
	s := &Server{
		Identity: filepath.Join(dir, "user"), KnownHosts: filepath.Join(dir, "known_hosts"),
		options: o, dir: dir, conns: make(map[net.Conn]bool), random: mrand.New(mrand.NewPCG(o.Seed, 1)),
	}
	if s.options.Listen == "" {
		s.options.Listen = "127.0.0.1:0"
	}
	if s.options.Exec == nil {
		s.options.Exec = (*Server).Vsnode
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", s.options.Listen)
	if err != nil {
		return nil, err
	}
	s.listener = listener
	s.Port = listener.Addr().(*net.TCPAddr).Port
	line := fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, ssh.MarshalAuthorizedKey(s.HostKey.PublicKey()))
	if err := appendFile(s.KnownHosts, line); err != nil {
		listener.Close()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.accept)
	return s, nil
}

func (s *Server) configure() error {
	user, err := readKey(s.Identity)
	if err != nil {
		return err
	}
	if s.HostKey, err = readKey(filepath.Join(s.dir, "host")); err != nil {
		return err
	}
	shown, admitted := s.HostKey, user
	if s.options.WrongHostKey {
		if shown, err = readKey(filepath.Join(s.dir, "wrong")); err != nil {
			return err
		}
	}
	if s.options.AuthorizedOther {
		if admitted, err = readKey(filepath.Join(s.dir, "other")); err != nil {
			return err
		}
	}
	want := string(admitted.PublicKey().Marshal())
	s.config = &ssh.ServerConfig{
		ServerVersion: "SSH-2.0-OpenSSH_9.9 fakesshd",
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if string(key.Marshal()) != want {
				return nil, errors.New("another key")
			}
			return nil, nil
		},
	}
	s.config.AddHostKey(shown)
	return nil
}

// Penalise refuses all connections for a time.
func (s *Server) Penalise(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.penalty = time.Now().Add(d)
}

// Cut closes all connections.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// Close ends the server and all its connections.
func (s *Server) Close() {
	s.cancel()
	s.listener.Close()
	s.Cut()
	s.running.Wait()
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		s.conns[c] = true
		closing := s.ctx.Err() != nil
		s.mu.Unlock()
		if closing {
			c.Close()
			return
		}
		s.running.Go(func() {
			s.serve(c, int(s.Connections.Add(1)))
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

// admit reports whether sshd would serve a new connection, or why not.
func (s *Server) admit() (refusal string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.options.MaxStartups
	switch {
	case time.Now().Before(s.penalty):
		return "Not allowed at this time\r\n", false
	case m.Full > 0 && s.startups >= m.Full,
		m.Full > 0 && s.startups >= m.Begin &&
			s.random.IntN(100) < m.Rate+(100-m.Rate)*(s.startups-m.Begin)/max(1, m.Full-m.Begin):
		return "Exceeded MaxStartups\r\n", false
	}
	s.startups++
	return "", true
}

// authenticated takes a connection out of those that MaxStartups counts.
func (s *Server) authenticated() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startups--
}

func readKey(file string) (ssh.Signer, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		block, err := ssh.MarshalPrivateKey(private, "")
		if err != nil {
			return nil, err
		}
		b = pem.EncodeToMemory(block)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(b)
}

func appendFile(file, line string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.WriteString(f, line)
	return err
}
