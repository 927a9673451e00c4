package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/network"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Program describes a program to run inside a running guest.
type Program struct {
	Argv                  []string // empty: the guest's shell, as a login
	User                  procctx.User
	Stdin, Stdout, Stderr *os.File
	Terminal              bool // the streams are a terminal of the guest's
	Term                  string

	Account string   // instead of User: a name or ID in the guest's /etc/passwd, with its home
	Dir     string   // where it starts; empty: /
	Env     []string // NAME=VALUE, beside and over what every program gets

	// Of the caller who runs it with his own streams (Host.Run):
	Tty     Tty
	Signals <-chan os.Signal // passed on to it while it runs; SIGHUP hangs it up, and the caller's context no longer does
}

// Tty is whether a program gets a terminal.
type Tty int

// A program gets a terminal of the guest's if both its input and its output are one, or
// always, or never.
const (
	AutoTerminal Tty = iota
	AlwaysTerminal
	NoTerminal
)

// Check refuses what cannot be a program's environment or directory.
func (p Program) Check() error {
	for _, kv := range p.Env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("environment %q: want NAME=VALUE", kv)
		}
	}
	if p.Dir != "" && (p.Dir[0] != '/' || strings.ContainsRune(p.Dir, 0)) {
		return fmt.Errorf("directory %q: want a path of the guest that begins with /", p.Dir)
	}
	return nil
}

// ErrNotRunning means that an operation needs a running guest.
var ErrNotRunning = errors.New("not running")

// view is what can be seen of a running guest whose lock we do not hold: it may end at
// any time.
type view struct {
	enterNotes
	cgroup  cgroup.Dir
	initPID int
}

// look finds a running guest.
func (h *Host) look(name string) (v view, err error) {
	if err := h.exists(name); err != nil {
		return v, err
	}
	if _, v.cgroup, err = h.cgroup(name); err != nil {
		return v, err
	}
	if v.initPID, err = v.cgroup.Init(); err != nil {
		return v, err
	}
	if v.initPID == 0 {
		return v, ErrNotRunning
	}
	if v.enterNotes, err = h.readEnterNotes(name); errors.Is(err, fs.ErrNotExist) {
		err = ErrNotRunning // it has just been stopped
	}
	return v, err
}

// Exec starts a program in a running guest. If the guest keeps it from beginning, Exec
// gives up when ctx ends or after 10 s.
func (h *Host) Exec(ctx context.Context, name string, p Program) (*procctx.Running, error) {
	v, err := h.look(name)
	if err == nil {
		err = v.SameNamespace(v.initPID)
	}
	if err == nil && v.Enter == nil {
		v.Enter, err = h.configuredEntry(name)
	}
	if err != nil {
		return nil, fmt.Errorf("guest %s: %w", name, err)
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	var home []string
	if p.Account != "" {
		a, err := v.account(p.Account)
		if err != nil {
			return nil, fmt.Errorf("guest %s: %w", name, err)
		}
		p.User, home = a.User, a.environment()
	}
	cmd := p.command(v, home)
	if cmd.Scope, err = v.scope(); err != nil {
		return nil, err
	}
	if len(cmd.Argv) > 0 {
		return procctx.Exec(ctx, cmd)
	}
	// Linux-VServer tries shells in this order.
	shells := [][]string{{"/bin/bash", "-login"}, {"/bin/sh", "-l"}, {"/bin/csh"}}
	if shell := v.Enter.Shell; shell != "" {
		shells = [][]string{{shell}}
	}
	for _, argv := range shells {
		cmd.Argv = argv
		var run *procctx.Running
		run, err = procctx.Exec(ctx, cmd)
		if !errors.Is(err, unix.ENOENT) {
			return run, err
		}
	}
	return nil, err
}

// command returns the command that enters the guest and runs the program. The
// environment home is that of its account.
func (p Program) command(v view, home []string) procctx.Command {
	terminal := cmp.Or(p.Term, "dumb")
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "TERM=" + terminal, "container=vserver",
	}
	for _, kv := range append(home, p.Env...) {
		env = withVariable(env, kv)
	}
	e := v.Enter
	return procctx.Command{
		InitPID: v.initPID, Cgroup: v.cgroup, PrivateNet: v.NAT, Caps: e.Caps, Nesting: !e.NoNesting, Raw: e.Raw, OwnUptime: ownUptime(),
		Attributes: e.Attributes, User: p.User, Argv: p.Argv, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr, Terminal: p.Terminal,
		Env: env, Dir: p.Dir,
	}
}

// withVariable sets NAME=VALUE in an environment.
func withVariable(env []string, kv string) []string {
	name, _, _ := strings.Cut(kv, "=")
	env = slices.DeleteFunc(env, func(have string) bool { return strings.HasPrefix(have, name+"=") })
	return append(env, kv)
}

// scope reports whether a program that enters has to be confined by Landlock.
func (v view) scope() (bool, error) {
	if v.recovered {
		// Process 1 is not evidence of the network by itself: the guest decides what it
		// shows.
		return network.Shared.Scope()
	}
	return v.Mode("").Scope()
}

// Terminal opens a terminal in a running guest and returns its master and the end for a
// program inside. The terminal is on the guest's devpts, so that the program has a name
// for it. It is reached by descriptors, and what is found is checked before use, as the
// guest could have put anything in its place.
func (h *Host) Terminal(ctx context.Context, name string) (ours, theirs *os.File, err error) {
	v, err := h.look(name)
	if err != nil {
		return nil, nil, fmt.Errorf("guest %s: %w", name, err)
	}
	type ends struct{ ours, theirs *os.File }
	t, err := promptly(ctx, func() (ends, error) {
		ours, theirs, err := terminal(v.initPID, procctx.BaseID(v.Context))
		return ends{ours, theirs}, err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("guest %s: make a terminal: %w", name, err)
	}
	return t.ours, t.theirs, nil
}

// promptly calls a function that looks into a guest's files, which the guest may have
// put on a filesystem that never answers (FUSE). A call that hangs is abandoned and
// ends with this process.
func promptly[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		val T
		err error
	}
	done := make(chan result, 1)
	go func() {
		val, err := f()
		done <- result{val, err}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, lookPatience, errNoAnswer)
	defer cancel()
	select {
	case r := <-done:
		return r.val, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

const lookPatience = 10 * time.Second

var errNoAnswer = fmt.Errorf("the guest's filesystem gave no answer within %s", lookPatience)

func terminal(initPID, owner int) (ours, theirs *os.File, err error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", initPID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(root)
	ptmx, err := unix.Openat2(root, "dev/pts/ptmx", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/pts/ptmx: %w", err)
	}
	defer unix.Close(ptmx)
	var st unix.Stat_t
	var fsys unix.Statfs_t
	if err := errors.Join(unix.Fstat(ptmx, &st), unix.Fstatfs(ptmx, &fsys)); err != nil {
		return nil, nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) || fsys.Type != unix.DEVPTS_SUPER_MAGIC {
		return nil, nil, errors.New("/dev/pts/ptmx is no pseudo-terminal multiplexer")
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", ptmx), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours = os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("unlock: %w", err)
	}
	// Open the other end without looking up a name (TIOCGPTPEER, kernel 4.13).
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		ours.Close()
		return nil, nil, fmt.Errorf("open the other end: %w", errno)
	}
	theirs = os.NewFile(peer, "pts")
	if err := unix.Fchown(int(peer), owner, -1); err != nil {
		ours.Close()
		theirs.Close()
		return nil, nil, fmt.Errorf("give it to the guest's root: %w", err)
	}
	return ours, theirs, nil
}
