package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// A command that becomes root first prints a line with a random number on standard error.
// Before that line nothing of the session belongs to the command: no input is sent but
// the password, if sudo or doas ask for it, and an end of the session is theirs.

// Ways of [Settings.BecomeMethod].
const (
	Sudo = "sudo"
	Doas = "doas"
)

const (
	rootMark     = "vsfleet-root-"     // begins the line
	passwordMark = "vsfleet-password-" // sudo's prompt, with the same number
	noMethod     = "vsfleet-none-"     // the host has neither sudo nor doas
)

// becoming is one attempt to become root on a host.
type becoming struct {
	method   string // Sudo, Doas or "": what the host has
	password string
	number   string // random, so that nothing else that a host prints is taken for a mark
	terminal bool   // sudo wants one (requiretty)
}

func newBecoming(s Settings, password string, terminal bool) becoming {
	return becoming{method: s.BecomeMethod, password: password, number: rand.Text(), terminal: terminal}
}

// command returns the command that runs another one as root.
func (b becoming) command(command string) string {
	sudo, doas := b.sudoScript(), b.doasScript()
	script := `c=$(printf "%b." "$0"); V="echo ` + rootMark + b.number + ` >&2; ${c%.}"; export V; `
	switch b.method {
	case Sudo:
		script += `if command -v sudo >/dev/null 2>&1; then ` + sudo + `; fi; `
	case Doas:
		script += `if command -v doas >/dev/null 2>&1; then ` + doas + `; fi; `
	default:
		script += `if command -v sudo >/dev/null 2>&1; then ` + sudo + `; fi; if command -v doas >/dev/null 2>&1; then ` + doas + `; fi; `
	}
	return Script(script+`echo `+noMethod+b.number+` >&2; exit 127`, command)
}

func (b becoming) sudoScript() string {
	sudo := "sudo -n --"
	if b.password != "" {
		sudo = "sudo -S -p " + passwordMark + b.number + ": --"
	}
	if b.terminal {
		return onTerminal(sudo, "", " </dev/null")
	}
	return `exec ` + sudo + ` sh -c "$V"`
}

// doasScript lets doas read the password from a terminal, as it takes it from nowhere else.
// The line of the password is read from the session only if doas wants one.
func (b becoming) doasScript() string {
	if b.password == "" {
		return `exec doas -n sh -c "$V"`
	}
	return `case $(doas -n sh -c : 2>&1) in *equired*) ` + onTerminal("doas", `{ IFS= read -r p <&3; printf "%s\n" "$p"; } | `, "") +
		` ;; esac; exec doas -n sh -c "$V"` // if no password helps, doas says why
}

// onTerminal runs a command of sudo or doas on a terminal of its own, made by script(1).
// Its standard streams are those of the session all the same: a terminal would change the
// bytes, and join the two outputs. What the terminal shows goes to standard error.
func onTerminal(become, before, stdin string) string {
	return `exec 3<&0 4>&1 5>&2; ` + before + `SHELL=/bin/sh script -qec "exec ` + become + ` sh -c \"\$V\" <&3 >&4 2>&5" /dev/null` + stdin + ` >&5 2>&5; exit $?`
}

// await reads the host's standard error until the command has become root, and sends the
// password if it is asked for. It returns a reader of what the command itself prints.
func (b becoming) await(stderr io.Reader, stdin io.Writer) (io.Reader, error) {
	var said []byte
	sent := false
	chunk := make([]byte, 1024)
	for {
		n, err := stderr.Read(chunk)
		said = append(said, chunk[:n]...)
		if before, after, found := bytes.Cut(said, []byte(rootMark+b.number+"\n")); found { // before it: a lecture, prompts
			rest := io.MultiReader(bytes.NewReader(slices.Clone(after)), stderr)
			if sent && !bytes.Contains(before, []byte("\r\n")) && bytes.Contains(before, []byte("doas (")) {
				rest = &lineEndFilter{r: rest}
			}
			return rest, nil
		}
		switch prompts := b.prompts(said); {
		case prompts > 1:
			return nil, ofKind(kindSudo, "become root: the password is wrong")
		case prompts == 1 && !sent:
			sent = true
			if _, err := io.WriteString(stdin, b.password+"\n"); err != nil {
				return nil, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, &becomeError{string(said), b.number, sent}
		case err != nil:
			return nil, err
		case len(said) > maxChatter:
			return nil, ofKind(kindSudo, "become root: no command began within the first 64 KiB of standard error")
		}
	}
}

// lineEndFilter leaves out the end of the line of doas's prompt: script passes that on from
// its terminal, perhaps only after the command has begun.
type lineEndFilter struct {
	r    io.Reader
	done bool
}

func (f *lineEndFilter) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if before, after, found := bytes.Cut(p[:n], []byte("\r\n")); found && !f.done {
		f.done = true
		n = copy(p[len(before):], after) + len(before)
	}
	return n, err
}

// prompts counts the prompts for a password in the output of sudo or doas.
func (b becoming) prompts(said []byte) int {
	if b.password == "" {
		return 0
	}
	n := bytes.Count(said, []byte(passwordMark+b.number+":"))
	for line := range bytes.Lines(said) {
		if foreignPrompt.Match(line) {
			n++
		}
	}
	return n
}

// foreignPrompt is a line with the prompt of doas, or of PAM where that is not
// replaced by ours (passprompt_override).
var foreignPrompt = regexp.MustCompile(`^\r?(doas \(.*\) password|\[sudo.*\].*|Password): \r?\n?$`)

// becomeError reports that a session ended before its command had become root.
type becomeError struct {
	said   string // on standard error
	number string
	sent   bool // the password
}

// ErrorKind is an outcome.Kind.
func (e *becomeError) ErrorKind() string { return kindSudo }

// Hint returns how to try doas by hand; that of the error's kind is for sudo.
func (e *becomeError) Hint() string {
	if last := e.last(); !strings.HasPrefix(last, "doas: ") && !strings.HasPrefix(last, "doas (") {
		return ""
	}
	return "try it by hand: ssh USER@ADDRESS doas -n true; give the password with -K, or log in as root"
}

// wantsTerminal reports whether sudo refused because it has no terminal (requiretty).
func (e *becomeError) wantsTerminal() bool {
	return strings.Contains(e.said, "must have a tty to run sudo")
}

func (e *becomeError) Error() string {
	if strings.Contains(e.said, noMethod+e.number) {
		return "become root: the host has neither sudo nor doas (or not the one of become_method): install it, or log in as root"
	}
	text, cure := e.last(), ""
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	sudo := strings.HasPrefix(text, "sudo: ") || strings.HasPrefix(text, "sudo-rs: ")
	switch {
	case e.sent && has("Authentication failed", "authentication failed", "incorrect password", "Authentication failure"):
		return "become root: the password is wrong: " + Printable(text)
	case has("script: ") && has("not found"):
		cure = "it takes script, of util-linux, to ask for the password there: install it, or let doas.conf have permit nopass USER"
	case strings.HasPrefix(text, "doas: "):
		cure = "doas.conf must let this user run anything: permit nopass USER; or give the password with --ask-become-pass (-K)"
	case sudo && has("tty"):
		cure = "sudoers must not want a terminal of this user: Defaults:USER !requiretty"
	case sudo && has("password is required", "askpass", "terminal is required"):
		cure = "give the password with --ask-become-pass (-K), or let sudoers have USER ALL=(ALL) NOPASSWD: ALL"
	case strings.HasPrefix(text, "Sorry, user "), has("is not in the sudoers file", "not allowed to"), sudo && has("authenticat"):
		cure = "sudoers must let this user run anything: USER ALL=(ALL) ALL"
	case text == "":
		return "become root: the session ended without a word"
	}
	if cure == "" {
		return "become root: " + Printable(text)
	}
	return fmt.Sprintf("become root: %s (%s)", Printable(text), cure)
}

// last returns the last line that sudo or doas printed.
func (e *becomeError) last() string {
	lines := strings.Split(strings.TrimSpace(e.said), "\n")
	for _, l := range slices.Backward(lines) {
		l = strings.TrimSpace(strings.ReplaceAll(l, passwordMark+e.number+":", ""))
		if l != "" {
			return l
		}
	}
	return ""
}

// becomeRoot waits until the command of a session has become root.
func (s *Session) becomeRoot(ctx context.Context, b becoming) error {
	var rest io.Reader
	err := runWithContext(ctx, func() (err error) {
		rest, err = b.await(s.Stderr, s.Stdin)
		return err
	})
	if err != nil {
		return err
	}
	s.Stderr = rest
	return nil
}
