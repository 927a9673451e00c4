package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/hook"
	"github.com/vsfleet/vsfleet/node/network"
	"github.com/vsfleet/vsfleet/node/probe"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Options of a start.
type Options struct {
	Warn func(string) // called with each thing that will not work as expected; may be nil
	// OnRunning is called when the guest runs and Start is only watching whether it
	// keeps running; may be nil.
	OnRunning func()
	// Rescue runs a command in the guest instead of its init, if not nil.
	Rescue *Rescue
	// Sync waits until the guest is ready: its systemd has said READY=1, the scripts of
	// its runlevel have ended, apps/init/cmd.start-sync has. A guest with apps/init/sync
	// is always waited for.
	Sync bool

	unwatched bool // nobody waits for what becomes of it
}

// Rescue is what a start with --rescue runs, in place of the configured init.
type Rescue struct {
	Command []string // empty: RescueCommand
	Init    bool     // it is process 1; otherwise a child of one of ours that ends with it
}

// RescueCommand is Linux-VServer's: time to enter the guest.
var RescueCommand = []string{"/bin/sleep", "900"}

// ErrRunning means that the guest is already running.
var ErrRunning = errors.New("already running")

// Start starts a guest and returns when its init has taken over. If the host's
// WatchStarts is set it also watches the guest for a moment, and returns an EndedError
// if that ends. If Start fails, it undoes all it did. If the guest already runs, it is
// left alone and the error is ErrRunning.
func (h *Host) Start(ctx context.Context, name string, opt Options) error {
	return h.Hold(ctx, name, "start", func(g *Guest) error { return g.Start(ctx, opt) })
}

// Restart stops a guest and starts it. If it is known beforehand that the guest could
// not be started again, it keeps running.
func (h *Host) Restart(ctx context.Context, name string, opt Options) error {
	return h.Hold(ctx, name, "restart", func(g *Guest) error { return g.Restart(ctx, opt) })
}

// start is a start in progress.
type start struct {
	*Guest
	Options
	config  Config
	mode    network.Mode
	network *network.Guest
	spec    procctx.Spec // of the guest's first process
	process procctx.Process
	// notifier hears when the guest's init is ready; nil: nobody waits for that.
	notifier *notifier
}

// step is one step of a start, and its undo. The undo depends on the notes alone, as
// the vsnode that took the step may have been killed. It may find all, some or none of
// what there is to undo.
type step struct {
	do   func(*start, context.Context) error
	undo func(*Guest, context.Context) error
}

// startSteps lists the steps of a start in order. release undoes all of them in reverse
// order.
func startSteps() []step {
	return []step{
		{(*start).claim, (*Guest).forgetNotes},
		{(*start).prepreStart, (*Guest).postpostStop},
		{(*start).makeCgroup, (*Guest).removeCgroup},
		{(*start).limit, nil}, // removed with the cgroup
		{(*start).limitDisk, nil},
		{(*start).confineDevices, nil}, // removed with the cgroup
		{(*start).makeVolumes, nil},    // they outlive the guest
		{(*start).checkNetwork, nil},
		{(*start).attachNetwork, (*Guest).releaseNetwork},
		{(*start).attachConsole, (*Guest).saveConsole},
		{(*start).watchEnd, (*Guest).forgetEnd},
		{(*start).preStart, (*Guest).postStop},
		{(*start).launch, (*Guest).kill},
		{(*start).finish, (*Guest).removeRunFiles},
		{(*start).watch, nil},
		{(*start).postStart, nil},
	}
}

// Start is like Host.Start; the guest's lock is already held.
func (g *Guest) Start(ctx context.Context, opt Options) error {
	m, err := g.manager(ctx, opt.Warn)
	if err == nil && m != nil {
		defer m.Close()
		return g.startUnit(ctx, m, opt)
	}
	if err == nil {
		_, err = g.startHere(ctx, opt)
	}
	return err
}

// startHere starts the guest from this process.
func (g *Guest) startHere(ctx context.Context, opt Options) (*start, error) {
	s := &start{Guest: g, Options: opt}
	if opt.Warn != nil {
		ctx = WithWarn(ctx, opt.Warn)
	}
	if err := s.prepare(ctx); err != nil {
		return s, err
	}
	defer func() { s.spec.Cgroup.Close() }() // invalid while it is nil
	for _, step := range startSteps() {
		if err := step.do(s, ctx); err != nil {
			err = probe.HereWith(g.host.DataDir).Explain(err, append(probe.Required(), s.mode.Needs()...)...)
			return s, errors.Join(err, g.release(context.WithoutCancel(ctx)))
		}
	}
	return s, nil
}

// Restart is like Host.Restart; the guest's lock is already held. It starts the
// configuration that was checked before the guest was stopped.
func (g *Guest) Restart(ctx context.Context, opt Options) error {
	c, err := g.Config()
	if err == nil {
		err = refusal(g.host.config(g.name), c.Unread)
	}
	if err == nil {
		_, err = g.host.spec(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("it could not be started again, and is left as it is: %w", err)
	}
	if _, err := g.Stop(ctx); err != nil {
		return err
	}
	return g.Start(ctx, opt)
}

// release undoes a start, by whichever vsnode and however far it got. Remaining
// processes of the guest are killed.
func (g *Guest) release(ctx context.Context) error {
	if g.mount == "" {
		return cgroup.ErrNotMounted
	}
	if _, err := g.notes(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, step := range slices.Backward(startSteps()) {
		if step.undo == nil {
			continue
		}
		if err := step.undo(g, ctx); err != nil {
			return err
		}
	}
	return nil
}

// prepare does what precedes the first step and needs no undo.
func (s *start) prepare(ctx context.Context) (err error) {
	if s.config, err = s.Config(); err != nil {
		return err
	}
	if err := s.refuseRunning(ctx); err != nil {
		return err
	}
	if err := s.initialize(ctx); err != nil {
		return err
	}
	if err := refusal(s.host.config(s.name), s.config.Unread); err != nil {
		return err
	}
	if s.Warn != nil {
		for _, text := range s.config.warnings() {
			s.Warn(text)
		}
		if r := s.config.Boot.Restart; r.Policy != "" && !s.inUnit {
			s.Warn(fmt.Sprintf("restart: %s has no effect: systemd would start the guest again, and this host's does not run it", r))
		}
	}
	if s.config.Context == 0 {
		if s.config.Context, err = s.host.giveContext(ctx, s.name); err != nil {
			return err
		}
	}
	if err := s.clear(ctx); err != nil {
		return err
	}
	if s.mode, err = network.Of(s.config.Network.Mode); err != nil {
		return err
	}
	if s.spec, err = s.host.spec(ctx, s.config); err != nil {
		return err
	}
	if err := s.rebase(ctx, s.config.TrustDomain, s.config.Image, &s.spec.Root); err != nil {
		return err
	}
	s.rescue()
	return nil
}

// refuseRunning returns ErrRunning if the guest runs. It first completes a start that
// was cut short, and restores what was taken from the guest.
func (s *start) refuseRunning(ctx context.Context) error {
	if on, err := s.up(ctx); err != nil || !on {
		return err
	}
	if err := s.Guest.finish(ctx); err != nil {
		return err
	}
	if err := s.postStart(ctx); err != nil {
		return err
	}
	if _, err := s.repair(ctx); err != nil {
		return err
	}
	return ErrRunning
}

// clear removes what a killed start or a guest that died left.
func (s *start) clear(ctx context.Context) error {
	// A create that was killed after its last step: the configuration, which exists, is
	// written after the data.
	if err := remove(s.host.incompleteMark(s.name)); err != nil {
		return err
	}
	if err := errors.Join(s.noteEnd(), s.release(ctx)); err != nil {
		return err
	}
	return s.host.closeData()
}

// claim notes the start before anything is done that needs an undo. It refuses what
// another running guest has: see Host.free.
func (s *start) claim(ctx context.Context) error {
	enter, end := s.config.entry(), s.config.ending()
	n := notes{
		Started: time.Now().Truncate(time.Millisecond), Boot: linux.SinceBoot(),
		Context: s.config.Context, Notes: network.FirstNotes(s.mode),
		Root: resolved(s.config.Root), Runs: &s.config.Guest, Enter: &enter, Ending: &end,
	}
	_, n.Described = s.spec.Root.Described()
	set, err := s.host.hooks(s.name)
	if err != nil {
		return err
	}
	n.PostStart = set.Has(hook.PostStart)
	_, unlock, err := s.host.lockClaims(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.host.free(ctx, s.config.Guest, n.Root); err != nil {
		return err
	}
	if err := s.host.beforeClaim(); err != nil {
		return err
	}
	if err := s.writeNotes(n); err != nil {
		return err
	}
	s.host.index.noteHolder(s.name, n)
	return nil
}

// makeCgroup also writes the notes to the cgroup.
func (s *start) makeCgroup(context.Context) (err error) {
	if s.inUnit {
		s.cgroup = cgroup.InUnit(s.mount, s.name)
		if err := s.cgroup.Leave(); err != nil {
			return fmt.Errorf("make room in its unit: %w", err)
		}
	}
	if s.spec.Cgroup, err = s.cgroup.Make(procctx.BaseID(s.config.Context)); err != nil {
		return err
	}
	return s.noted.writeAttribute(s.cgroup)
}

func (g *Guest) removeCgroup(context.Context) error {
	if g.noted != nil && g.noted.recovered {
		// To the file: what is noted on the cgroup is removed with it.
		if err := g.saveNotes(); err != nil {
			return err
		}
	}
	return g.cgroup.Remove()
}

// limit writes the configured files of the cgroup.
func (s *start) limit(context.Context) error {
	counted, err := s.countsProcesses()
	if err != nil {
		return err
	}
	// In order: the kernel refuses a quota of processors below what may be saved up.
	for _, file := range slices.Sorted(maps.Keys(s.config.Cgroup)) {
		content := s.config.Cgroup[file]
		if file == pidsFile && !counted { // cgroup v1 has the controller: the user namespace counts processes
			s.spec.Processes, _ = strconv.ParseInt(content, 10, 64) // "max" parses as no limit
			continue
		}
		lines, err := limitLines(file, content, s.config.Root)
		if err != nil {
			return err
		}
		for _, value := range lines {
			if err := s.cgroup.Limit(s.mount, file, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *start) checkNetwork(ctx context.Context) error {
	s.network = s.onNetwork()
	s.network.Warn = s.Warn
	return s.mode.Check(ctx, s.network)
}

// attachNetwork leaves a private network to launch: it is attached when there is a
// process with a namespace.
func (s *start) attachNetwork(ctx context.Context) (err error) {
	if s.spec.Scope, err = s.mode.Scope(); err != nil {
		return err
	}
	if !s.mode.Private() {
		return s.mode.Attach(ctx, s.network)
	}
	s.spec.PrivateNet = true
	s.spec.Connect = func(netns *os.File) error {
		s.network.Netns = netns
		return s.mode.Attach(ctx, s.network)
	}
	return nil
}

func (g *Guest) releaseNetwork(ctx context.Context) error {
	if g.noted == nil {
		return nil
	}
	return g.noted.mode().Release(ctx, g.onNetwork())
}

// launch makes the guest's first process, and returns once it has become the guest's
// own program.
func (s *start) launch(ctx context.Context) (err error) {
	if s.notifier = s.host.notifier(s.name); s.notifier == nil && s.listens() {
		s.notifier = &notifier{}
		defer func() { // a start that fails is not watched
			if err != nil {
				s.notifier.close()
			}
		}()
	}
	if s.notifier != nil {
		s.notifier.prepare(&s.spec, procctx.BaseID(s.config.Context))
	}
	s.spec.Warn = func(text string) { warn(ctx, text) }
	s.process, err = procctx.Start(ctx, s.spec)
	switch {
	case s.notifier == nil:
	case err != nil:
		s.notifier.close()
	default:
		s.notifier.started(s.process.PID)
	}
	if err != nil || s.spec.OOMScoreAdj == 0 {
		return err
	}
	return procctx.Change(s.cgroup, procctx.Attributes{}, procctx.Attributes{OOMScoreAdj: s.spec.OOMScoreAdj})
}

func (g *Guest) kill(ctx context.Context) error { return g.cgroup.Kill(ctx) }

// finish completes a start once the guest runs. If vsnode is killed before that, the
// next call completes it.
func (g *Guest) finish(ctx context.Context) error {
	n, err := g.notes()
	if err != nil || n.Done {
		return err
	}
	if err := g.publish(ctx); err != nil {
		return err
	}
	if err := errors.Join(g.writeRunFile(), g.nameRoot(), remove(g.host.endFile(g.name))); err != nil {
		return err
	}
	done := *n
	done.Done = true
	return g.writeNotes(done)
}

// writeRunFile makes the file that `run` links to, with the content Linux-VServer gives
// it.
func (g *Guest) writeRunFile() error {
	return linux.WriteFile(g.host.runFile(g.name), []byte(strconv.Itoa(g.noted.Context)+"\n"), 0o644)
}

// removeRunFiles removes the files that exist only while the guest runs.
func (g *Guest) removeRunFiles(context.Context) error {
	return errors.Join(remove(g.host.runFile(g.name)), g.unnameRoot(), remove(g.host.pendingFile(g.name)), remove(g.host.readyFile(g.name)))
}

// spec translates the configuration into that of the guest's first process.
func (h *Host) spec(ctx context.Context, c Config) (procctx.Spec, error) {
	sp := procctx.Spec{
		XID:       c.Context,
		Hostname:  c.Hostname,
		Domain:    c.Domain,
		Caps:      c.Caps,
		Nesting:   !c.NoNesting,
		Raw:       c.Network.Raw,
		OwnUptime: ownUptime(),
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"container=" + manager, "TERM=linux", "HOME=/root",
		},
		Sysctls:    c.Sysctls,
		Attributes: c.Attributes,
	}
	views, err := viewsOf(c, sp.OwnUptime)
	if err != nil {
		return sp, err
	}
	sp.Mounts = append(views, c.Mounts...)
	for _, v := range c.Env {
		sp.Env = withVariable(sp.Env, v)
	}
	// A link that vdir leads to would dangle in the detached layers.
	upper, err := filepath.EvalSymlinks(c.Root)
	if err != nil {
		return sp, fmt.Errorf("its own files (vdir): %w", err)
	}
	sp.Root = procctx.Root{Upper: upper, Work: upper + ".work"}
	if c.Root == h.rootDir(c.Name) {
		sp.Root.Work = filepath.Join(filepath.Dir(upper), filepath.Base(h.workDir(c.Name)))
	}
	if sp.Hostname == "" {
		sp.Hostname = c.Name
	}
	if c.Image != "" {
		if err := os.MkdirAll(sp.Root.Work, 0o700); err != nil {
			return sp, err
		}
		if sp.Root.Image, err = h.lower(ctx, upper, c.TrustDomain, c.Image); err != nil {
			return sp, err
		}
	}
	if c.Image != "" {
		// overlayfs makes a directory for its work; a private root may be read-only.
		if err := errors.Join(writable(sp.Root.Upper), writable(sp.Root.Work)); err != nil {
			return sp, err
		}
	}
	sp.Argv, sp.Reaper = c.command()
	return sp, h.describe(&sp, c)
}

// ownUptime reports whether guests have an uptime of their own. A guest that an older
// vsnode started has the host's, whose namespace can be joined all the same.
func ownUptime() bool { return probe.Want(probe.TimeNamespaces) == nil }
