package transport

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/skeema/knownhosts"
)

// DefaultConnectTimeout is the ConnectTimeout where none is set.
const DefaultConnectTimeout = 10 * time.Second

// Settings is how a host is reached. A field's zero value stands for its default.
type Settings struct {
	Name    string // in errors; default: the address
	Address string // name or IP address
	Port    int    // default 22
	User    string // default root
	// Identity is a key file. If it is set, no other key is offered (IdentitiesOnly):
	// only the file's key, or the agent's if the file is protected by a passphrase
	// or holds a public key. Default: the agent's keys and those of ~/.ssh.
	Identity string
	Keys     Keys // beside Identity
	// KnownHosts is a file of host keys. Default: the files of HostKeys, else
	// ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts.
	KnownHosts string
	HostKeys   HostKeys
	// HostKeyAlias is the host's name in known_hosts and in its certificate, if
	// that is not its address.
	HostKeyAlias string
	// Via is the last bastion on the way to the host, which may have one of its own.
	Via *Settings
	// ProxyCommand is a command of this machine's shell whose standard input and output
	// lead to the host's sshd. It takes the place of Via.
	ProxyCommand string
	// ControlPath is the socket of an ssh that may run and share its connection to the host.
	ControlPath string

	NoPublicKey, NoPassword, NoKeyboardInteractive bool // ways to log in that are not tried

	Network        string // "tcp4" or "tcp6"; default "tcp", which is both
	BindAddress    string // of this machine
	Algorithms     Algorithms
	Become         bool          // commands run as root, by sudo or doas
	BecomeMethod   string        // Sudo or Doas; default: what the host has, sudo first
	ConnectTimeout time.Duration // of one attempt, to the end of authentication
	KeepAlive      time.Duration // interval of pings; default 15s, the connection is closed after three misses
}

// Keys are the keys with which the user logs in, as ssh_config has them.
type Keys struct {
	// Identities are files in the place of those in ~/.ssh. Files that do not exist are
	// left out.
	Identities []string
	// Only means that the agent's keys are offered only if one of Identities is their
	// public half.
	Only         bool
	Certificates []string // files; each is offered with its key
	Agent        string   // socket of the agent, or "none"; default: the Dialer's
}

// HostKeys says which host keys are trusted, as ssh_config has it.
type HostKeys struct {
	Files   []string // of known hosts; the first takes new keys; those that do not exist are empty
	Revoked string   // a file of keys that are refused
	Hash    bool     // names of new keys are hashed
	// New means that a key that is not known may be added, by whoever connects: a missing
	// file of KnownHosts is then an empty one. Ask means: after a question.
	New, Ask bool
}

// Algorithms are lists in the place of the default ones. A list that begins with "+" adds
// to the default, one with "-" takes away from it, one with "^" puts its algorithms first.
type Algorithms struct {
	HostKeys, KeyExchanges, Ciphers, MACs, PublicKeys string
}

func (s Settings) withDefaults() Settings {
	s.Name = cmp.Or(s.Name, s.Address)
	s.Port = cmp.Or(s.Port, 22)
	s.User = cmp.Or(s.User, "root")
	s.ConnectTimeout = cmp.Or(s.ConnectTimeout, DefaultConnectTimeout)
	s.KeepAlive = cmp.Or(s.KeepAlive, 15*time.Second)
	return s
}

// endpoint returns where sshd listens, as known_hosts and net.Dial take it.
func (s Settings) endpoint() string { return net.JoinHostPort(s.Address, strconv.Itoa(s.Port)) }

// String returns the host's name and, if that differs, its address.
func (s Settings) String() string {
	if s.Name == s.Address && s.Port == 22 {
		return s.Name
	}
	return fmt.Sprintf("%s (%s)", s.Name, s.endpoint())
}

// knownHostsEndpoint returns the endpoint under which known_hosts has the host's key.
func (s Settings) knownHostsEndpoint() string {
	if s.HostKeyAlias != "" {
		return net.JoinHostPort(s.HostKeyAlias, "22") // as ssh: without a port
	}
	return s.endpoint()
}

// key returns a string that is equal for settings that lead to the same login.
func (s Settings) key() string {
	key := ""
	for ; ; s = *s.Via {
		s = s.withDefaults()
		s.HostKeys.New, s.HostKeys.Ask = false, false
		key += fmt.Sprintf("%q %#v %#v %#v ", []string{
			s.User, s.endpoint(), s.Identity, s.KnownHosts, s.HostKeyAlias, s.ConnectTimeout.String(), s.ProxyCommand, s.Network, s.BindAddress,
		}, s.Keys, s.HostKeys, s.Algorithms)
		if s.Via == nil {
			return key
		}
	}
}

// KnownHostsName returns the host's name in known_hosts.
func (s Settings) KnownHostsName() string {
	return knownhosts.Normalize(s.withDefaults().knownHostsEndpoint())
}

// Route returns the endpoints on the way to the host's sshd, its own last: settings
// with the same route lead to the same sshd.
func (s Settings) Route() string {
	s = s.withDefaults()
	if s.ProxyCommand != "" {
		return fmt.Sprintf("%q %s", s.ProxyCommand, s.endpoint())
	}
	if s.Via == nil {
		return s.endpoint()
	}
	return s.Via.Route() + " " + s.endpoint()
}

// Hop is one jump host on the way to a host.
type Hop struct {
	User    string // default: that of the host's settings
	Address string // name or IP address
	Port    int    // default 22
}

// ParseJump parses the jump hosts on the way to a host, the first hop first: separated
// by commas, each "[user@]host[:port]" or "ssh://[user@]host[:port]", an IPv6
// address with a port in brackets. For "none" it returns none.
func ParseJump(jump string) ([]Hop, error) {
	if jump == "" || jump == "none" {
		return nil, nil
	}
	var hops []Hop
	for part := range strings.SplitSeq(jump, ",") {
		hop, err := parseHop(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("jump host %q: %w", jump, err)
		}
		hops = append(hops, hop)
	}
	return hops, nil
}

var errHop = errors.New("want [user@]host[:port] or ssh://[user@]host[:port], with commas between several")

func parseHop(s string) (h Hop, err error) {
	s, uri := strings.CutPrefix(s, "ssh://")
	if uri {
		s = strings.TrimSuffix(s, "/")
	}
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		h.User, s = s[:i], s[i+1:]
		if uri {
			if h.User, err = url.PathUnescape(h.User); err != nil {
				return Hop{}, err
			}
		}
		if h.User == "" {
			return Hop{}, errHop
		}
	}
	h.Address = s
	if host, number, err := net.SplitHostPort(s); err == nil {
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || port == 0 {
			return Hop{}, fmt.Errorf("%q is no port", number)
		}
		h.Address, h.Port = host, int(port)
	} else if inner, ok := strings.CutPrefix(s, "["); ok {
		h.Address = strings.TrimSuffix(inner, "]") // [2001:db8::1] without a port
	}
	if h.Address == "" || h.Address == "none" || h.Address[0] == '-' || strings.ContainsAny(h.Address, "/@[] ") {
		return Hop{}, errHop
	}
	return h, nil
}

// Settings returns the settings of the hop on the way to s, from which it takes the
// identity and known hosts, and the user if it names none.
func (h Hop) Settings(s Settings, via *Settings) *Settings {
	return &Settings{
		Name: "jump host " + h.Address, Address: h.Address, Port: h.Port, User: cmp.Or(h.User, s.User), Via: via,
		Identity: s.Identity, KnownHosts: s.KnownHosts, ConnectTimeout: s.ConnectTimeout, KeepAlive: s.KeepAlive,
	}
}

// expandHome replaces a leading ~ with the home directory.
func expandHome(path string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("~ is nowhere: HOME is not set")
	}
	return filepath.Join(dir, path[1:]), nil
}
