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

// handshake is one attempt to log in at an sshd, and what it observed: if the
// attempt fails, explain makes the error from that, with one text per cause.
type handshake struct {
	settings Settings
	dialer   *Dialer
	ctx      context.Context // ends with the attempt
	deadline *deadline
	turn     bool // this is the one host that may wait for a touch
	known    *knownHosts
	revoked  revokedKeys
	session  *sessionKeys
	sock     *socket
	keys     *offer
	probe    bool // ends at the host key: with a knownKeyError, or why the key is not accepted

	hostKeyKnown bool     // the host has shown a known key
	hostKeyError error    // why it has not
	methods      []string // of authentication that sshd still accepts; nil before it has listed them
	partial      bool     // a key was accepted, and sshd wants more
	acceptedKey  string   // the key that sshd has in authorized_keys
	signError    error    // why that key did not sign
	touched      bool     // it is on a security key

	passwordGiven bool
}

func (h *handshake) config() (*ssh.ClientConfig, error) {
	algorithms, err := h.settings.Algorithms.config()
	if err != nil {
		return nil, err
	}
	signers := make([]ssh.Signer, len(h.keys.signers))
	for i, key := range h.keys.signers {
		signers[i] = observeSigner(key, h, h.keys.names[i])
	}
	var methods []ssh.AuthMethod
	if !h.settings.NoPublicKey {
		methods = append(methods, ssh.PublicKeys(signers...))
	}
	return &ssh.ClientConfig{
		Config:            algorithms,
		User:              h.settings.User,
		Auth:              append(methods, h.passwordMethods()...),
		HostKeyAlgorithms: h.settings.Algorithms.hostKeys(h.known.algorithms(h.settings.knownHostsEndpoint())),
		HostKeyCallback: func(_ string, remote net.Addr, key ssh.PublicKey) error {
			h.hostKeyError = h.checkHostKey(remote, key)
			if h.hostKeyError == nil && h.probe {
				h.hostKeyError = &knownKeyError{key}
			}
			h.hostKeyKnown = h.hostKeyError == nil
			return h.hostKeyError
		},
		AuthCallback: func(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			h.methods, h.partial = c.AllowedMethods, len(c.PartialSuccessMethods) > 0
			return nil, nil // by Auth
		},
	}, nil
}

// checkHostKey returns nil if the key that the host shows is known, else why it is not
// accepted.
func (h *handshake) checkHostKey(remote net.Addr, key ssh.PublicKey) error {
	if h.revoked.has(key) {
		return fmt.Errorf("its host key %s is revoked by %s: do not connect", KeyString(key), h.settings.HostKeys.Revoked)
	}
	err := h.known.check(h.settings.knownHostsEndpoint(), remote, key)
	var unknown *UnknownKeyError
	if errors.As(err, &unknown) {
		if h.session.has(unknown.Name, key) {
			return nil
		}
		unknown.Hash = h.settings.HostKeys.Hash
	}
	return err
}

// observeSigner returns the key with its signatures recorded in h: sshd asks only a
// key that it has in authorized_keys to sign.
func observeSigner(key ssh.Signer, h *handshake, name string) ssh.Signer {
	w := observedSigner{key, h, name}
	multi, ok := key.(ssh.MultiAlgorithmSigner)
	if !ok {
		return w
	}
	return observedMultiSigner{w, multi}
}

type observedSigner struct {
	ssh.Signer
	h    *handshake
	name string
}

func (w observedSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return w.SignWithAlgorithm(rand, data, "")
}

func (w observedSigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (sig *ssh.Signature, err error) {
	w.h.acceptedKey = w.name
	done, err := w.h.signing(w.PublicKey(), w.name)
	if err != nil {
		return nil, err
	}
	defer done()
	if by, ok := w.Signer.(ssh.AlgorithmSigner); ok {
		sig, err = by.SignWithAlgorithm(rand, data, algorithm)
	} else {
		sig, err = w.Signer.Sign(rand, data)
	}
	w.h.signError = err
	return sig, err
}

type observedMultiSigner struct {
	observedSigner
	multi ssh.MultiAlgorithmSigner
}

func (w observedMultiSigner) Algorithms() []string { return w.multi.Algorithms() }

// explain returns why a handshake ended with err.
func (h *handshake) explain(ctx context.Context, err error) error {
	var negotiation *ssh.AlgorithmNegotiationError
	switch {
	case h.hostKeyError != nil:
		return &kindError{kindHostKey, h.hostKeyError}
	case h.hostKeyKnown:
		return h.authError(ctx, err)
	case !h.sock.hasVersion():
		return h.noServerError(ctx, err)
	case ctx.Err() != nil:
		return ofKind(kindTimeout, "SSH handshake: %w", context.Cause(ctx))
	case errors.As(err, &negotiation):
		return h.algorithmError(negotiation)
	case peerClosed(err):
		return &brokenError{err}
	}
	return fmt.Errorf("SSH handshake: %w", err)
}

// noServerError returns why the other side sent no version, as an SSH server would.
func (h *handshake) noServerError(ctx context.Context, err error) error {
	head := Printable(strings.ToValidUTF8(string(h.sock.head), "?"))
	drop := &droppedError{message: head}
	var proxy *proxyError
	switch {
	case errors.As(err, &proxy):
		return proxy
	case len(h.sock.head) > 0 && !drop.fromSSHD():
		return fmt.Errorf("no SSH server answers there, but something that says %q: is the port right?", head[:min(len(head), 60)])
	case ctx.Err() != nil:
		return ofKind(kindTimeout, "the connection was accepted and no SSH server spoke: %w", context.Cause(ctx))
	case peerClosed(err):
		return drop
	}
	return err
}

// algorithmError names the kind of algorithm of which the two sides share none, and
// the option of sshd that changes it.
func (h *handshake) algorithmError(err *ssh.AlgorithmNegotiationError) error {
	// x/crypto: "host key", "key exchange", "client to server cipher" and the like.
	kind, option := err.What, "Ciphers"
	switch {
	case strings.Contains(kind, "host key"):
		if len(h.known.hostKeys(h.settings.knownHostsEndpoint())) > 0 {
			return ofKind(kindHostKey, "it has no host key of a type that known_hosts holds for it: it has %s, known are %s",
				joinNames(err.RequestedAlgorithms), joinNames(err.SupportedAlgorithms))
		}
		option = "HostKeyAlgorithms"
	case strings.Contains(kind, "key exchange"):
		option = "KexAlgorithms"
	case strings.Contains(kind, "MAC"):
		option = "MACs"
	}
	return fmt.Errorf("it and vsfleet have no %s in common: it offers %s; let %s in its sshd_config have one of %s",
		kind, joinNames(err.RequestedAlgorithms), option, joinNames(err.SupportedAlgorithms))
}

func joinNames(names []string) string {
	s := Printable(strings.Join(names[:min(len(names), 12)], ","))
	return s[:min(len(s), 400)]
}

// authError returns why a host whose key is known does not let the user in.
func (h *handshake) authError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ofKind(kindTimeout, "authenticate as %s: %w", h.settings.User, context.Cause(ctx))
	}
	return &kindError{kindAuth, h.refusal(err)}
}

// refusal returns the error of an authentication that ended with err.
func (h *handshake) refusal(err error) error {
	user := h.settings.User
	switch {
	case errors.Is(err, errWrongPassword), h.passwordGiven && strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("permission denied: the password of %s is wrong, or sshd does not let %s in by password (%s)", user, user, h.keys)
	case h.signError != nil:
		return fmt.Errorf("authenticate as %s: %s does not sign: %w", user, h.acceptedKey, h.signError)
	case strings.Contains(err.Error(), "Too many authentication failures"):
		return fmt.Errorf("sshd hung up before the right key was offered (MaxAuthTries; %s): name that one with identity", h.keys)
	case peerClosed(err):
		return fmt.Errorf("sshd closed the connection while %s authenticated (%s): %w", user, h.keys, err)
	case !strings.Contains(err.Error(), "unable to authenticate") && !strings.Contains(err.Error(), "no supported methods"):
		return fmt.Errorf("authenticate as %s (%s): %w", user, h.keys, err)
	case h.partial:
		return fmt.Errorf("%s's key %s is right, and sshd wants %s besides (AuthenticationMethods): give the password with --ask-pass (-k), or let sshd take the key alone from this address (Match Address …, AuthenticationMethods publickey)",
			user, h.acceptedKey, joinNames(h.methods))
	case len(h.methods) > 0 && !slices.Contains(h.methods, "publickey"):
		return fmt.Errorf("sshd lets %s in by %s only, not by keys (PubkeyAuthentication, AuthenticationMethods): give the password with --ask-pass (-k)", user, joinNames(h.methods))
	case h.acceptedKey != "" && user == "root":
		return fmt.Errorf("root's key %s is right, and sshd does not let root in: set PermitRootLogin prohibit-password there, or log in as another user with become", h.acceptedKey)
	case h.acceptedKey != "":
		return fmt.Errorf("%s's key %s is right, and sshd does not let %s in: the account may be expired or locked, and sshd's log says why (there: journalctl -u ssh -u sshd)", user, h.acceptedKey, user)
	}
	return fmt.Errorf("permission denied: %s is not let in (%s): add a key to authorized_keys there, or name the right one with identity", user, h.keys)
}

// droppedError reports that a connection ended before sshd sent its version. That is
// how sshd throttles (MaxStartups), so another attempt is worthwhile.
type droppedError struct {
	message string // the reason, from sshd 9.8 and later
}

func (e *droppedError) Error() string {
	if e.message != "" {
		return "sshd closed the connection at once: " + e.message
	}
	return "sshd closed the connection at once"
}

// ErrorKind is an outcome.Kind.
func (e *droppedError) ErrorKind() string {
	if e.isPenalty() {
		return "penalty"
	}
	return "throttled"
}

// fromSSHD reports whether the message is one of an sshd that throttles.
func (e *droppedError) fromSSHD() bool {
	return e.isPenalty() || strings.HasPrefix(e.message, "Exceeded MaxStartups")
}

// isPenalty reports whether sshd punishes this address (PerSourcePenalties, of sshd
// 9.8 and later).
func (e *droppedError) isPenalty() bool { return strings.HasPrefix(e.message, "Not allowed") }

// brokenError reports that a connection ended between sshd's version and the
// authentication: a network that breaks connections, or an sshd that is just ending.
type brokenError struct{ err error }

func (e *brokenError) Error() string {
	return "the connection was closed during the handshake: " + e.err.Error() + "; if sshd did it, its log says why (there: journalctl -u ssh -u sshd)"
}
func (e *brokenError) Unwrap() error { return e.err }
