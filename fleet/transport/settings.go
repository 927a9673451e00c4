package transport

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Settings say how a host is reached. The zero value of a field is its default.
type Settings struct {
	Name    string // in errors; default: the address
	Address string // name or IP address
	Port    int    // default 22
	User    string // default root
	// Identity is a key file. It alone is offered then (IdentitiesOnly): the
	// file's key, or the agent's where the file is protected by a passphrase
	// or holds a public key. Default: the agent's keys and those of ~/.ssh.
	Identity   string
	KnownHosts string // default: ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts
	// Jump is the way to the host: "[user@]bastion[:port]", several from the
	// controller's side on with commas between. They take Identity and
	// KnownHosts from here, and User where they name none.
	Jump           string
	Become         bool          // commands run as root by sudo or doas
	ConnectTimeout time.Duration // of one attempt, to the end of authentication; default 10s
	KeepAlive      time.Duration // between questions to an idle host; default 15s, three misses are the end
}

func (s Settings) withDefaults() Settings {
	s.Name = cmp.Or(s.Name, s.Address)
	s.Port = cmp.Or(s.Port, 22)
	s.User = cmp.Or(s.User, "root")
	s.ConnectTimeout = cmp.Or(s.ConnectTimeout, 10*time.Second)
	s.KeepAlive = cmp.Or(s.KeepAlive, 15*time.Second)
	return s
}

// endpoint is where sshd listens, as known_hosts and net.Dial take it.
func (s Settings) endpoint() string { return net.JoinHostPort(s.Address, strconv.Itoa(s.Port)) }

// String names the host and, where that says something else, its address.
func (s Settings) String() string {
	if s.Name == s.Address && s.Port == 22 {
		return s.Name
	}
	return fmt.Sprintf("%s (%s)", s.Name, s.endpoint())
}

// lastHop splits Jump: the settings of the bastion next to the host, whose own
// Jump is the rest of the way.
func (s Settings) lastHop() (Settings, error) {
	way, hop := "", s.Jump
	if i := strings.LastIndexByte(s.Jump, ','); i >= 0 {
		way, hop = s.Jump[:i], s.Jump[i+1:]
	}
	b := s
	b.Become, b.Jump, b.Port = false, strings.TrimSpace(way), 22
	hop = strings.TrimSpace(hop)
	if i := strings.LastIndexByte(hop, '@'); i >= 0 {
		b.User, hop = hop[:i], hop[i+1:]
	}
	b.Address = hop
	if host, num, err := net.SplitHostPort(hop); err == nil {
		port, err := strconv.ParseUint(num, 10, 16)
		if err != nil || port == 0 {
			return Settings{}, fmt.Errorf("jump host %q: %q is no port", s.Jump, num)
		}
		b.Address, b.Port = host, int(port)
	} else if inner, ok := strings.CutPrefix(hop, "["); ok {
		b.Address = strings.TrimSuffix(inner, "]") // [2001:db8::1] without a port
	}
	if b.Address == "" || b.User == "" {
		return Settings{}, fmt.Errorf("jump host %q: want [user@]host[:port], with commas between several", s.Jump)
	}
	b.Name = "jump host " + b.Address
	return b, nil
}

// jumpName names the bastion next to the host, for errors.
func (s Settings) jumpName() string {
	hop, err := s.lastHop()
	if err != nil {
		return s.Jump
	}
	return hop.Address
}

// home expands a leading ~.
func home(path string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("~ is nowhere: HOME is not set")
	}
	return filepath.Join(dir, path[1:]), nil
}
