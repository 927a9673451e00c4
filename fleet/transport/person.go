package transport

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// personTimeout is how long a person may take to touch a security key, to confirm the use
// of the agent's key, or to answer a question of sshd's. sshd waits as long by default
// (LoginGraceTime).
const personTimeout = 2 * time.Minute

// deadline ends an attempt to log in, unless a person is at work.
type deadline struct {
	limit time.Duration
	timer *time.Timer
}

func newDeadline(limit time.Duration, end func()) *deadline {
	return &deadline{limit, time.AfterFunc(limit, end)}
}

// pause gives a person time; the function that it returns ends that.
func (d *deadline) pause() (resume func()) {
	d.timer.Reset(personTimeout)
	return func() { d.timer.Reset(d.limit) }
}

// touches lets one host at a time wait for a touch of a security key: a person has one
// finger, and nobody can tell which host a blinking key is for. While it is not known
// whether hosts want such a key at all, and once one has, they also log in one at a time:
// sshd does not wait for all those before.
type touches struct {
	once     sync.Once
	turn     chan struct{}
	unneeded atomic.Bool // hosts let in by other keys
}

func (t *touches) init() { t.once.Do(func() { t.turn = make(chan struct{}, 1) }) }

func (t *touches) acquire(ctx context.Context) error {
	t.init()
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *touches) release() { <-t.turn }

// ask asks the person, one question at a time for all hosts.
func (d *Dialer) ask(ctx context.Context, prompt string, echo bool) (string, error) {
	d.asking.Lock()
	defer d.asking.Unlock()
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	return d.Ask(ctx, prompt, echo)
}

// maxAnswers is how often a passphrase may be wrong.
const maxAnswers = 3

// unlock returns the key of a file that is protected by a passphrase, for which it asks
// once for all hosts.
func (d *Dialer) unlock(ctx context.Context, path string) (ssh.Signer, error) {
	return d.unlocked.get(path, func(path string) (ssh.Signer, error) {
		file, err := expandHome(path)
		if err != nil {
			return nil, err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read identity: %w", err)
		}
		for try := 0; ; try++ {
			phrase, err := d.ask(ctx, fmt.Sprintf("Passphrase for %s: ", path), false)
			if err != nil {
				return nil, fmt.Errorf("%s is protected by a passphrase and no agent holds it (ssh-add %s): %w", path, path, err)
			}
			if phrase == "" {
				return nil, fmt.Errorf("%s is protected by a passphrase, and none was given", path)
			}
			key, err := ssh.ParsePrivateKeyWithPassphrase(b, []byte(phrase))
			switch {
			case err == nil:
				return key, nil
			case !errors.Is(err, x509.IncorrectPasswordError):
				return nil, fmt.Errorf("read identity %s: %w", path, err)
			case try+1 == maxAnswers:
				return nil, fmt.Errorf("%s is protected by a passphrase, and %d were wrong", path, maxAnswers)
			}
		}
	})
}

// errWrongPassword ends a login: the same password would be wrong once more.
var errWrongPassword = errors.New("the password is wrong")

// passwordMethods returns the ways to log in by the password, if there is one.
func (h *handshake) passwordMethods() []ssh.AuthMethod {
	if h.dialer.Password == "" {
		return nil
	}
	var methods []ssh.AuthMethod
	if !h.settings.NoKeyboardInteractive {
		methods = append(methods, ssh.KeyboardInteractive(h.challenge))
	}
	if !h.settings.NoPassword {
		methods = append(methods, ssh.PasswordCallback(h.givePassword))
	}
	return methods
}

func (h *handshake) givePassword() (string, error) {
	if h.passwordGiven {
		return "", errWrongPassword
	}
	h.passwordGiven = true
	return h.dialer.Password, nil
}

// challenge answers questions of sshd's: the password where it is asked for, what the
// person says else (a code of a second factor).
func (h *handshake) challenge(_, _ string, questions []string, echos []bool) ([]string, error) {
	answers := make([]string, len(questions))
	for i, question := range questions {
		var err error
		switch {
		case !echos[i] && strings.Contains(strings.ToLower(question), "password"):
			answers[i], err = h.givePassword()
		case h.dialer.Ask == nil:
			err = fmt.Errorf("sshd asks %q, and there is nobody to answer", Printable(question))
		default:
			resume := h.deadline.pause()
			answers[i], err = h.dialer.ask(h.ctx, h.settings.Name+": "+Printable(question)+" ", echos[i])
			resume()
		}
		if err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// signing is called before a key signs; the function that it returns, afterwards. The
// agent may ask a person, and a security key waits for one.
func (h *handshake) signing(key ssh.PublicKey, name string) (done func(), err error) {
	resume := h.deadline.pause()
	if !isSecurityKey(key) {
		return resume, nil
	}
	h.dialer.touches.unneeded.Store(false)
	h.touched = true
	release := func() {}
	if !h.turn {
		if err := h.dialer.touches.acquire(h.ctx); err != nil {
			resume()
			return nil, err
		}
		release = h.dialer.touches.release
	}
	if h.dialer.Say != nil {
		h.dialer.Say(fmt.Sprintf("%s: touch the security key: %s", h.settings.Name, name))
	}
	return func() { release(); resume() }, nil
}
