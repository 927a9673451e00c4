package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// handshake is one attempt to be let in by an sshd, and what was seen of it:
// one text for one cause is made of that when it fails.
type handshake struct {
	settings Settings
	known    *knownHosts
	sock     *socket
	keys     *offer
	probe    bool // ends with the host key: a knownKey, or why it is not

	proven   bool     // the host has shown a key that is known
	hostKey  error    // why it has not
	methods  []string // that sshd says can go on; nil before it said so
	partial  bool     // a key was right, and sshd wants more
	accepted string   // the key that sshd has in authorized_keys
	unsigned error    // why that key did not sign
}

func (h *handshake) config() *ssh.ClientConfig {
	signers := make([]ssh.Signer, len(h.keys.signers))
	for i, key := range h.keys.signers {
		signers[i] = watch(key, h, h.keys.names[i])
	}
	return &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: keyExchanges()},
		User:              h.settings.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signers...)},
		HostKeyAlgorithms: h.known.algorithms(h.settings.knownAs()),
		HostKeyCallback: func(_ string, remote net.Addr, key ssh.PublicKey) error {
			h.hostKey = h.known.check(h.settings.knownAs(), remote, key)
			if h.hostKey == nil && h.probe {
				h.hostKey = &knownKey{key}
			}
			h.proven = h.hostKey == nil
			return h.hostKey
		},
		AuthCallback: func(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			h.methods, h.partial = c.AllowedMethods, len(c.PartialSuccessMethods) > 0
			return nil, nil // by Auth
		},
	}
}

// watch notes when a key is asked to sign: sshd asks for that only of a key
// that it has in authorized_keys.
func watch(key ssh.Signer, h *handshake, name string) ssh.Signer {
	w := watched{key, h, name}
	multi, ok := key.(ssh.MultiAlgorithmSigner)
	if !ok {
		return w
	}
	return watchedMulti{w, multi}
}

type watched struct {
	ssh.Signer
	h    *handshake
	name string
}

func (w watched) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return w.SignWithAlgorithm(rand, data, "")
}

func (w watched) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (sig *ssh.Signature, err error) {
	w.h.accepted = w.name
	if by, ok := w.Signer.(ssh.AlgorithmSigner); ok {
		sig, err = by.SignWithAlgorithm(rand, data, algorithm)
	} else {
		sig, err = w.Signer.Sign(rand, data)
	}
	w.h.unsigned = err
	return sig, err
}

type watchedMulti struct {
	watched
	multi ssh.MultiAlgorithmSigner
}

func (w watchedMulti) Algorithms() []string { return w.multi.Algorithms() }

// explain says why a handshake ended with err.
func (h *handshake) explain(ctx context.Context, err error) error {
	var none *ssh.AlgorithmNegotiationError
	switch {
	case h.hostKey != nil:
		return h.hostKey
	case h.proven:
		return h.refusal(ctx, err)
	case !h.sock.greeted():
		return h.stranger(ctx, err)
	case ctx.Err() != nil:
		return fmt.Errorf("SSH handshake: %w", context.Cause(ctx))
	case errors.As(err, &none):
		return h.noCommon(none)
	case peerClosed(err):
		return fmt.Errorf("sshd closed the connection during the handshake, and its log says why (there: journalctl -u ssh -u sshd): %w", err)
	}
	return fmt.Errorf("SSH handshake: %w", err)
}

// stranger is what answers without the greeting of an SSH server.
func (h *handshake) stranger(ctx context.Context, err error) error {
	said := Printable(strings.ToValidUTF8(string(h.sock.head), "?"))
	drop := &dropped{said: said}
	switch {
	case len(h.sock.head) > 0 && !drop.throttled():
		return fmt.Errorf("no SSH server answers there, but something that says %q: is the port right?", said[:min(len(said), 60)])
	case ctx.Err() != nil:
		return fmt.Errorf("the connection was accepted and no SSH server spoke: %w", context.Cause(ctx))
	case peerClosed(err):
		return drop
	}
	return err
}

// noCommon names what the two sides have no algorithm in common for.
func (h *handshake) noCommon(none *ssh.AlgorithmNegotiationError) error {
	// x/crypto: "host key", "key exchange", "client to server cipher" and the like.
	kind, option := none.What, "Ciphers"
	switch {
	case strings.Contains(kind, "host key"):
		if len(h.known.hostKeys(h.settings.knownAs())) > 0 {
			return fmt.Errorf("it has no host key of a type that known_hosts holds for it: it has %s, known are %s",
				list(none.RequestedAlgorithms), list(none.SupportedAlgorithms))
		}
		option = "HostKeyAlgorithms"
	case strings.Contains(kind, "key exchange"):
		option = "KexAlgorithms"
	case strings.Contains(kind, "MAC"):
		option = "MACs"
	}
	return fmt.Errorf("it and vsfleet have no %s in common: it offers %s; let %s in its sshd_config have one of %s",
		kind, list(none.RequestedAlgorithms), option, list(none.SupportedAlgorithms))
}

func list(names []string) string {
	s := Printable(strings.Join(names[:min(len(names), 12)], ","))
	return s[:min(len(s), 400)]
}

// refusal is why a host whose key is known does not let us in.
func (h *handshake) refusal(ctx context.Context, err error) error {
	user := h.settings.User
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("authenticate as %s: %w", user, context.Cause(ctx))
	case h.unsigned != nil:
		return fmt.Errorf("authenticate as %s: %s does not sign: %w", user, h.accepted, h.unsigned)
	case strings.Contains(err.Error(), "Too many authentication failures"):
		return fmt.Errorf("sshd hung up before the right key was offered (MaxAuthTries; %s): name that one with identity", h.keys)
	case peerClosed(err):
		return fmt.Errorf("sshd closed the connection while %s authenticated (%s): %w", user, h.keys, err)
	case !strings.Contains(err.Error(), "unable to authenticate") && !strings.Contains(err.Error(), "no supported methods"):
		return fmt.Errorf("authenticate as %s (%s): %w", user, h.keys, err)
	case h.partial:
		return fmt.Errorf("%s's key %s is right, and sshd wants %s besides (AuthenticationMethods): vsfleet answers no questions; let sshd take the key alone from this address (Match Address …, AuthenticationMethods publickey)",
			user, h.accepted, list(h.methods))
	case len(h.methods) > 0 && !slices.Contains(h.methods, "publickey"):
		return fmt.Errorf("sshd lets %s in by %s only, not by keys (PubkeyAuthentication, AuthenticationMethods): vsfleet answers no questions", user, list(h.methods))
	case h.accepted != "" && user == "root":
		return fmt.Errorf("root's key %s is right, and sshd does not let root in: set PermitRootLogin prohibit-password there, or log in as another user with become", h.accepted)
	case h.accepted != "":
		return fmt.Errorf("%s's key %s is right, and sshd does not let %s in: the account may be expired or locked, and sshd's log says why (there: journalctl -u ssh -u sshd)", user, h.accepted, user)
	}
	return fmt.Errorf("permission denied: %s is not let in (%s): add a key to authorized_keys there, or name the right one with identity", user, h.keys)
}

// dropped is a connection that ended before sshd said its version: that is how
// it throttles (MaxStartups), and so it is worth another try.
type dropped struct {
	said string // sshd 9.8 and later say why
}

func (e *dropped) Error() string {
	if e.said != "" {
		return "sshd closed the connection at once: " + e.said
	}
	return "sshd closed the connection at once"
}

// throttled reports whether an sshd says this of itself.
func (e *dropped) throttled() bool {
	return e.penalty() || strings.HasPrefix(e.said, "Exceeded MaxStartups")
}

// penalty reports whether sshd punishes this address (PerSourcePenalties): then
// another try within seconds only makes it last.
func (e *dropped) penalty() bool { return strings.HasPrefix(e.said, "Not allowed") }
