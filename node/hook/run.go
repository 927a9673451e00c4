package hook

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/cgroup"
)

// Variable is the environment variable in which a hook finds the guests that are held
// while it runs, separated by blanks. A vsnode that is called by the hook must not wait
// for one of them.
const Variable = "VSERVER_HELD"

// Call describes a call of the hooks of one phase.
type Call struct {
	Phase  Phase
	Name   string     // of the guest
	Dir    string     // its configuration, the working directory of the hooks
	Held   []string   // guests that are held meanwhile
	Cgroup cgroup.Dir // is made for each hook, and removed
	Info   any        // standard input, as JSON
	// Refuse returns an error for a file, given without links, that must not be run.
	Refuse func(path string) error
	// Say is called with each line of output. It may be nil.
	Say func(string)
	// All has the other hooks run after one has failed.
	All bool
}

// Run runs the hooks of a phase one after the other: the guest's own, and the defaults
// if it has none or one of its own asks for them. The error names the file that failed
// and what it said last.
func (s Set) Run(ctx context.Context, c Call) error {
	more := len(s.own[c.Phase]) == 0
	var errs []error
	run := func(list []string) {
		for _, path := range list {
			if len(errs) > 0 && !c.All || ctx.Err() != nil {
				return
			}
			defaults, err := c.run(ctx, path, s.Timeout)
			more = more || defaults
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", path, err))
			}
		}
	}
	run(s.own[c.Phase])
	if more {
		run(s.defaults[c.Phase])
	}
	if err := ctx.Err(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sourced runs a hook that is not executable, as Linux-VServer's shell did by reading
// it: such a hook can set DONT_SKIP_DEFAULTS to have the defaults run too.
const sourced = `hook=$1; shift; trap 'test -z "$DONT_SKIP_DEFAULTS" || echo >&3' EXIT; . "$hook"`

// run runs one hook. It reports whether the hook asks for the defaults.
func (c Call) run(ctx context.Context, path string, limit time.Duration) (defaults bool, err error) {
	target, err := Trusted(path)
	if err == nil {
		err = c.Refuse(target)
	}
	if err != nil {
		return false, fmt.Errorf("it is not run: %w", err)
	}
	shell := "/bin/sh"
	if _, err := os.Stat("/bin/bash"); err == nil {
		shell = "/bin/bash" // of which Linux-VServer's own scripts were
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	argv := []string{path, string(c.Phase), c.Name}
	if unix.Access(target, unix.X_OK) != nil {
		argv = append([]string{shell, "-c", sourced, shell}, argv...)
	}
	defaults, err = c.exec(ctx, argv)
	if errors.Is(err, unix.ENOEXEC) { // no "#!"
		defaults, err = c.exec(ctx, append([]string{shell}, argv...))
	}
	if errors.Is(err, fs.ErrNotExist) {
		if name := interpreter(target); name != "" {
			err = fmt.Errorf("its interpreter %s is not there", name)
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("it did not end within %s and was killed (the file %s beside it has the limit)%s", limit, TimeoutFile, said(err))
	}
	return defaults, err
}

// interpreter returns the program that a script names after "#!".
func interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _, _ := bufio.NewReaderSize(f, 256).ReadLine()
	if text, script := bytes.CutPrefix(line, []byte("#!")); script {
		name, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		return name
	}
	return ""
}

// exec runs a program in a cgroup of its own and returns when nothing of it is left.
func (c Call) exec(ctx context.Context, argv []string) (defaults bool, err error) {
	info, err := json.Marshal(c.Info)
	if err != nil {
		return false, err
	}
	pen, err := newPen(ctx, c.Cgroup)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, pen.close(ctx)) }()
	var p pipes
	defer p.close()
	stdin, feed, err := p.open()
	if err != nil {
		return false, err
	}
	out, stdout, err := p.open()
	if err != nil {
		return false, err
	}
	ask, asked, err := p.open()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = c.Dir, c.environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stdout
	cmd.ExtraFiles = []*os.File{asked}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(pen.dir.Fd())}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	for _, theirs := range []*os.File{stdin, stdout, asked} {
		theirs.Close()
	}
	go func() {
		_, _ = feed.Write(append(info, '\n')) // a hook need not read it
		feed.Close()
	}()
	lines := make(chan *tail, 1)
	go func() { lines <- follow(out) }()

	stop := context.AfterFunc(ctx, pen.kill)
	err = cmd.Wait()
	stop()
	left := pen.empty()
	// What left the cgroup may hold the other ends of the pipes.
	soon := time.Now().Add(time.Second)
	errD := errors.Join(out.SetReadDeadline(soon), ask.SetReadDeadline(soon))
	output := <-lines
	n, _ := ask.Read(make([]byte, 1))
	if ctx.Err() != nil {
		return n > 0, &failure{errors.Join(ctx.Err(), errD), output}
	}
	if err != nil {
		c.report(argv, output, max(len(output.lines)-1, 0), left) // the error has the last line
		return n > 0, &failure{errors.Join(err, errD), output}
	}
	c.report(argv, output, len(output.lines), left)
	return n > 0, errD
}

// report passes on the first shown of the lines that a hook wrote, and that it left
// processes.
func (c Call) report(argv []string, output *tail, shown, left int) {
	if c.Say == nil {
		return
	}
	if output.dropped > 0 {
		c.Say(fmt.Sprintf("%s: %d lines, the last of which are:", c.Phase, output.dropped+len(output.lines)))
	}
	for _, line := range output.lines[:shown] {
		c.Say(string(c.Phase) + ": " + line)
	}
	if left > 0 {
		c.Say(fmt.Sprintf("%s: %s left processes behind (%d), which were ended: a service of the host starts what is to stay", c.Phase, argv[len(argv)-3], left))
	}
}

func (c Call) environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		"VSERVER_NAME=" + c.Name, "VSERVER_DIR=" + c.Dir, Variable + "=" + strings.Join(c.Held, " "),
		"VSERVER_HOOK=" + string(c.Phase),
	}
}

// Held returns the guests that are held while the hook runs that called this process.
func Held() []string { return strings.Fields(os.Getenv(Variable)) }

// failure is the end of a hook that failed.
type failure struct {
	err    error
	output *tail
}

func (f *failure) Error() string { return f.err.Error() + said(f) }
func (f *failure) Unwrap() error { return f.err }

func said(err error) string {
	var f *failure
	if !errors.As(err, &f) || len(f.output.lines) == 0 {
		return ""
	}
	return fmt.Sprintf("; its last output: %q", f.output.lines[len(f.output.lines)-1])
}

// tail holds the last lines of an output.
type tail struct {
	lines   []string
	dropped int
}

const (
	maxLines = 20
	maxLine  = 400
)

// follow reads an output to its end.
func follow(r io.Reader) *tail {
	t := &tail{}
	for in := bufio.NewReaderSize(r, 4096); ; {
		line, rest, err := in.ReadLine()
		for more := rest; more && err == nil; { // a line that is longer than the buffer
			_, more, err = in.ReadLine()
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if len(t.lines) == maxLines {
				t.lines, t.dropped = t.lines[1:], t.dropped+1
			}
			t.lines = append(t.lines, string(line[:min(len(line), maxLine)]))
		}
		if err != nil {
			return t
		}
	}
}

// pipes are closed together.
type pipes []*os.File

func (p *pipes) open() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err == nil {
		*p = append(*p, r, w)
	}
	return r, w, err
}

func (p *pipes) close() {
	for _, f := range *p {
		f.Close()
	}
}

// pen is a cgroup that is killed when vsnode ends, however that happens.
type pen struct {
	path    cgroup.Dir
	dir     *os.File
	keeper  *exec.Cmd
	release *os.File // the pipe whose end the keeper waits for
}

func newPen(ctx context.Context, path cgroup.Dir) (*pen, error) {
	// An old one is that of a killed vsnode, whose keeper is about to end it.
	if err := kill(ctx, path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(string(path), 0o755); err != nil {
		return nil, err
	}
	p := &pen{path: path}
	var err error
	if p.dir, err = linux.Open(string(path), os.O_RDONLY, 0); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		p.dir.Close()
		return nil, err
	}
	defer r.Close()
	p.release = w
	p.keeper = exec.Command("/bin/sh", "-c", `read -r line || echo 1 >"$1/cgroup.kill"`, "vsnode-hook", string(path))
	p.keeper.Dir, p.keeper.Env, p.keeper.Stdin = "/", []string{"PATH=/usr/bin:/bin"}, r
	// In the cgroup, so that whoever kills vsnode with all of its own cgroup does not
	// reach the keeper.
	p.keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(p.dir.Fd())}
	if err := p.keeper.Start(); err != nil {
		p.dir.Close()
		w.Close()
		return nil, errors.Join(err, path.Remove())
	}
	return p, nil
}

// kill ends everything in the cgroup.
func (p *pen) kill() {
	_ = linux.WriteFile(filepath.Join(string(p.path), "cgroup.kill"), []byte("1"), 0) // close reports what is left
}

// empty dismisses the keeper, ends what the hook left, and returns how many processes
// that were.
func (p *pen) empty() (left int) {
	_, _ = p.release.WriteString("\n") // fails if the keeper was killed with the rest
	_ = p.keeper.Wait()
	pids, _ := p.path.PIDs()
	p.kill()
	return len(pids)
}

func (p *pen) close(ctx context.Context) error {
	p.release.Close() // of a keeper that was not dismissed
	p.dir.Close()
	if p.keeper.ProcessState == nil {
		_ = p.keeper.Wait()
	}
	return kill(ctx, p.path)
}

// kill ends the processes of a cgroup and removes it, also after ctx has ended.
func kill(ctx context.Context, path cgroup.Dir) error {
	ctx = context.WithoutCancel(ctx)
	return errors.Join(path.Kill(ctx), path.Remove())
}
