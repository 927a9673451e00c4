package push

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vsfleet/vsfleet/fleet/transport"
)

// startTimeout is how long vsnode may take to begin, including the start-up files of
// the login shell, which may be slow. stallTimeout is how long an upload may make no
// progress; its whole duration is not bounded, as that depends on the link.
const (
	startTimeout = time.Minute
	stallTimeout = time.Minute
)

// Command is the subcommand that a vsnode runs for the controller.
type Command string

// Commands.
const (
	Serve  Command = "serve"  // answer many requests
	Stream Command = "stream" // answer one, with bytes beside it
)

// Options are for tests, and for hosts with vsnode in another directory.
type Options struct {
	Dir      string // on the host; default /var/lib/vsnode
	Binaries fs.FS  // as fleet/push/binaries; default: those inside this program
}

// Vsnode is a vsnode that runs on a host, in a session of its own.
type Vsnode struct {
	Version string // the beginning of its hash
	Pushed  bool   // it was missing before

	Session *transport.Session
	Stdout  *bufio.Reader // of the session, from the end of [api.Preamble]
	Stderr  *transport.LastLines
}

// Start starts vsnode on a host, and puts it there first if it is missing. ctx
// bounds the start.
func Start(ctx context.Context, conn *transport.Conn, command Command) (*Vsnode, error) {
	return Options{}.Start(ctx, conn, command)
}

// plainPath is a path that needs no quotes in a shell.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9_.-]+)+$`)

// Start is [Start] with these options.
func (o Options) Start(ctx context.Context, conn *transport.Conn, command Command) (*Vsnode, error) {
	v, err := o.start(ctx, conn, command)
	if err != nil {
		return nil, fmt.Errorf("start vsnode: %w", err)
	}
	return v, nil
}

func (o Options) start(ctx context.Context, conn *transport.Conn, command Command) (*Vsnode, error) {
	dir := cmp.Or(o.Dir, "/var/lib/vsnode")
	if !plainPath.MatchString(dir) {
		return nil, fmt.Errorf("%q is no place for vsnode: want an absolute path of letters, digits, - . and _", dir)
	}
	binaries, err := embeddedBinaries()
	if o.Binaries != nil {
		binaries, err = readBinaries(o.Binaries)
	}
	if err != nil {
		return nil, err
	}
	if len(binaries) == 0 {
		return nil, errors.New("this vsfleet carries no vsnode: build it with make build")
	}
	v, g, err := begin(ctx, conn, command, dir, binaries)
	if err != nil || v != nil {
		return v, err
	}
	b, err := g.choose(conn.Name(), binaries)
	if err != nil {
		return nil, err
	}
	if err := upload(ctx, conn, dir, b, g.form); err != nil {
		return nil, err
	}
	v, _, err = begin(ctx, conn, command, dir, []*binary{b})
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fmt.Errorf("%s: vsnode was put into %s and is not root's alone there: what owns or changes %s?", conn.Name(), dir, dir)
	}
	v.Pushed = true
	return v, nil
}

// begin runs the first command. It returns a vsnode that has greeted, or what the
// host needs.
func begin(ctx context.Context, conn *transport.Conn, command Command, dir string, binaries []*binary) (*Vsnode, greeting, error) {
	late := &hostError{"timeout", fmt.Errorf("%s: nothing within %s: does something in the login hang there?", conn.Name(), startTimeout)}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, late)
	defer cancel()
	s, err := conn.Pipe(ctx, shell(startScript(command, dir, binaries)))
	if err != nil {
		return nil, greeting{}, err
	}
	stderr := transport.CollectLastLines(s.Stderr)
	out := bufio.NewReader(s.Stdout)
	g, err := awaitGreeting(ctx, out)
	if err == nil && g.serves {
		for _, b := range binaries {
			if b.hash == g.hash {
				return &Vsnode{Version: b.hash[:12], Session: s, Stdout: out, Stderr: stderr}, g, nil
			}
		}
		err = fmt.Errorf("it started a vsnode that it was not asked for: %q", transport.Printable(g.hash))
	}
	defer s.Close()
	switch {
	case err == nil:
		// Wait for its end: with MaxSessions 1, sshd refuses the next session until then.
		_, end := s.Wait(ctx)
		return nil, g, end
	case ctx.Err() != nil:
		return nil, g, context.Cause(ctx)
	case !errors.Is(err, io.EOF):
		return nil, g, fmt.Errorf("%s: %w", conn.Name(), err)
	}
	output := cmp.Or(stderr.String(), "nothing on standard error")
	exit, end := s.Wait(ctx)
	switch {
	case end != nil:
		return nil, g, end // lost
	case exit == 126:
		return nil, g, &hostError{"noexec", fmt.Errorf("%s: %s: is %s on a file system mounted noexec, or does sudoers have noexec?", conn.Name(), output, dir)}
	}
	if exit == 1 {
		output += " (does the login shell there run commands? nologin and false do not)"
	}
	return nil, g, fmt.Errorf("%s: %w (exit status %d): %s", conn.Name(), err, exit, output)
}

// awaitGreeting waits for the greeting until ctx ends. If a login hangs, sshd does not
// end its output: the goroutine that reads it then ends with the connection.
func awaitGreeting(ctx context.Context, out *bufio.Reader) (greeting, error) {
	type result struct {
		g   greeting
		err error
	}
	read := make(chan result, 1)
	go func() {
		g, err := readGreeting(out)
		read <- result{g, err}
	}()
	select {
	case r := <-read:
		return r.g, r.err
	case <-ctx.Done():
		return greeting{}, context.Cause(ctx)
	}
}

// choose returns the binary that a host can run.
func (g greeting) choose(host string, binaries []*binary) (*binary, error) {
	if g.missing != "" {
		missing := strings.ReplaceAll(transport.Printable(g.missing), ",", ", ")
		return nil, &hostError{"unable", fmt.Errorf("%s lacks what a push needs: %s (findutils and coreutils, or busybox, have all)", host, missing)}
	}
	if g.uid != "0" {
		return nil, fmt.Errorf("%s: the user there is not root, who alone can run guests: log in as root, or set become to use sudo", host)
	}
	arch := map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[g.machine]
	if arch == "" {
		return nil, fmt.Errorf("%s is a machine of type %s: vsnode is made for x86_64 and aarch64", host, transport.Printable(g.machine))
	}
	for _, b := range binaries {
		if b.arch == arch {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%s: this vsfleet carries no vsnode for linux/%s: build it with make build", host, arch)
}

// upload writes a binary to a host.
func upload(ctx context.Context, conn *transport.Conn, dir string, b *binary, form string) error {
	in, err := b.stream(form)
	if err != nil {
		return err
	}
	script := uploadScript(dir, ".upload-"+strings.ToLower(rand.Text()), b, form)
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	sent := &progressReader{r: in}
	sent.stalled = time.AfterFunc(stallTimeout, func() {
		giveUp(&hostError{"timeout", fmt.Errorf("the host has taken nothing for %s, after %d KiB", stallTimeout, sent.bytes.Load()>>10)})
	})
	defer sent.stalled.Stop()
	var stderr transport.LastLines
	exit, err := conn.Exec(ctx, shell(script), sent, nil, &stderr)
	if err != nil {
		return fmt.Errorf("push it to %s: %w", path.Join(dir, b.hash), err)
	}
	if exit != 0 {
		err := fmt.Errorf("%s: push it to %s: %s (exit status %d)", conn.Name(), dir, stderr.String(), exit)
		if fullDisk.MatchString(stderr.String()) {
			return &hostError{"disk", err}
		}
		return err
	}
	return nil
}

// fullDisk matches what programs say of a filesystem that takes nothing more.
var fullDisk = regexp.MustCompile(`(?i)no space left on device|disk quota exceeded|read-only file system|write error`)

// hostError is an error with its outcome.Kind.
type hostError struct {
	kind string
	err  error
}

func (e *hostError) Error() string     { return e.err.Error() }
func (e *hostError) Unwrap() error     { return e.err }
func (e *hostError) ErrorKind() string { return e.kind }

// progressReader counts the bytes read, and restarts the timer stalled at each read.
type progressReader struct {
	r       io.Reader
	bytes   atomic.Int64
	stalled *time.Timer
}

func (m *progressReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.bytes.Add(int64(n))
	m.stalled.Reset(stallTimeout)
	return n, err
}
