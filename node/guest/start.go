package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/network"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Options of a start.
type Options struct {
	Warn func(string) // told of what will not work as expected; may be nil
	// Settling is called when the guest runs, and Start only waits to see whether
	// it goes on; may be nil.
	Settling func()
}

// ErrRunning says that a guest runs already.
var ErrRunning = errors.New("already running")

// Start starts a guest and returns when its init has taken over and, if the
// host's Settle is set, gone on for a moment: else it is an EndedError. When it
// fails, all that it did is undone. A guest that runs is left alone: ErrRunning.
func (h *Host) Start(ctx context.Context, name string, opt Options) error {
	return h.locked(ctx, name, "start", func() error { return h.start(ctx, name, opt) })
}

func (h *Host) start(ctx context.Context, name string, opt Options) (err error) {
	c, err := h.Read(name)
	if err != nil {
		return err
	}
	runs, err := h.running(name)
	if err != nil {
		return err
	}
	if runs {
		if runs, err = h.settled(ctx, name); err != nil {
			return err
		}
	}
	if runs {
		if err := h.finish(ctx, name); err != nil {
			return err
		}
		if _, err := h.repair(ctx, name); err != nil {
			return err
		}
		return ErrRunning
	}
	if err := refusal(h.config(name), c.Unread); err != nil {
		return err
	}
	if opt.Warn != nil {
		for _, text := range c.warnings() {
			opt.Warn(text)
		}
	}
	if c.Context == 0 {
		if c.Context, err = h.giveContext(name); err != nil {
			return err
		}
	}
	// A create that was killed behind its last step: the configuration, which is
	// there, comes after the data.
	if err := remove(h.incomplete(name)); err != nil {
		return err
	}
	// What a killed start or a guest that died left.
	if err := errors.Join(h.noteEnd(name), h.release(ctx, name)); err != nil {
		return err
	}
	if err := h.closeData(); err != nil {
		return err
	}
	spec, err := h.spec(c)
	if err != nil {
		return err
	}
	mode, err := network.Of(c.Network.Mode)
	if err != nil {
		return err
	}
	mount, cg, err := h.cgroup(name)
	if err != nil {
		return err
	}
	enter := c.entry()
	st := notes{
		Started: time.Now().Truncate(time.Millisecond), Boot: procctx.SinceBoot(),
		Context: c.Context, Notes: network.FirstNotes(mode),
		Root: resolved(c.Root), Runs: &c.Guest, Enter: &enter,
	}
	// Written before anything is done that has to be taken back.
	if err := h.claim(ctx, c, st); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			uctx := context.WithoutCancel(ctx)
			err = errors.Join(err, cg.Kill(uctx), h.release(uctx, name))
		}
	}()
	if spec.Cgroup, err = cg.Make(c.Context); err != nil {
		return err
	}
	defer spec.Cgroup.Close()
	if err := h.writeNotes(name, st); err != nil { // onto the cgroup as well
		return err
	}
	counted, err := h.countsProcesses()
	if err != nil {
		return err
	}
	for file, lines := range c.Cgroup {
		if file == pidsFile && !counted { // cgroup v1 has it: the user namespace counts them
			spec.Processes, _ = strconv.ParseInt(lines, 10, 64) // "max" is no bound
			continue
		}
		for value := range strings.SplitSeq(lines, "\n") {
			if err := cg.Limit(mount, file, value); err != nil {
				return err
			}
		}
	}
	on := h.onNetwork(name, cg, &st)
	on.Warn = opt.Warn
	if err := mode.Check(ctx, on); err != nil {
		return err
	}
	if spec.Scope, err = mode.Scope(); err != nil {
		return err
	}
	if mode.Private() {
		spec.PrivateNet = true
		spec.Connect = func(netns *os.File) error {
			on.Netns = netns
			return mode.Attach(ctx, on)
		}
	} else if err := mode.Attach(ctx, on); err != nil {
		return err
	}
	if err := h.attachConsole(c, &spec, opt.Warn); err != nil {
		return err
	}
	p, err := procctx.Start(ctx, spec)
	if err != nil {
		return err
	}
	if err := errors.Join(h.finish(ctx, name), remove(h.endFile(name))); err != nil {
		return err
	}
	if opt.Settling != nil {
		opt.Settling()
	}
	return h.settle(ctx, c, p)
}

// settled says whether a guest with processes runs, or only has the process of
// a start that was killed.
func (h *Host) settled(ctx context.Context, name string) (bool, error) {
	if st, err := h.readNotes(name); err == nil && st.Done {
		return true, nil
	}
	_, cg, err := h.cgroup(name)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return cg.Settle(ctx)
}

// finish does what is left of a start when the guest runs. A vsnode that was
// killed before it is made up for by the next call.
func (h *Host) finish(ctx context.Context, name string) error {
	st, err := h.readNotes(name)
	if err != nil || st.Done {
		return err
	}
	_, cg, err := h.cgroup(name)
	if err != nil {
		return err
	}
	if err := h.publish(ctx, name, cg, &st); err != nil {
		return err
	}
	if err := h.writeRunFile(name, st); err != nil {
		return err
	}
	st.Done = true
	return h.writeNotes(name, st)
}

// writeRunFile makes the file that `run` links to, with Linux-VServer's content.
func (h *Host) writeRunFile(name string, st notes) error {
	return os.WriteFile(h.runFile(name), []byte(strconv.Itoa(st.Context)+"\n"), 0o644)
}

// spec is what the configuration means for the guest's first process.
func (h *Host) spec(c Config) (procctx.Spec, error) {
	sp := procctx.Spec{
		XID:      c.Context,
		Hostname: c.Hostname,
		Domain:   c.Domain,
		Caps:     c.Caps,
		Nesting:  !c.NoNesting,
		Raw:      c.Network.Raw,
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"container=vserver", "TERM=linux", "HOME=/root",
		},
		Mounts:     c.Mounts,
		Sysctls:    c.Sysctls,
		Attributes: c.Attributes,
	}
	for _, v := range c.Env {
		key, _, _ := strings.Cut(v, "=")
		sp.Env = slices.DeleteFunc(sp.Env, func(have string) bool { return strings.HasPrefix(have, key+"=") })
		sp.Env = append(sp.Env, v)
	}
	// A link that vdir leads to would end in the detached layers, at nothing.
	upper, err := filepath.EvalSymlinks(c.Root)
	if err != nil {
		return sp, fmt.Errorf("its own files (vdir): %w", err)
	}
	sp.Root = procctx.Root{Upper: upper, Work: upper + ".work"}
	if c.Root == h.own(c.Name) {
		sp.Root.Work = filepath.Join(filepath.Dir(upper), filepath.Base(h.work(c.Name)))
	}
	if sp.Hostname == "" {
		sp.Hostname = c.Name
	}
	if c.Image != "" {
		if err := os.MkdirAll(sp.Root.Work, 0o700); err != nil {
			return sp, err
		}
		if sp.Root.Image, err = h.Tree(c.Image); err != nil {
			return sp, err
		}
	}
	if c.Image != "" {
		// overlayfs makes a directory for its work; a root of its own may be read-only.
		if err := errors.Join(writable(sp.Root.Upper), writable(sp.Root.Work)); err != nil {
			return sp, err
		}
	}
	sp.Argv = []string{"/sbin/init"}
	if c.Runlevel != "" {
		sp.Argv = append(sp.Argv, c.Runlevel)
	}
	if len(c.Init.Command) > 0 {
		sp.Argv = c.Init.Command
	}
	return sp, nil
}

// Restart stops a guest and starts it. One that could not be started again, as
// far as that can be told, goes on running.
func (h *Host) Restart(ctx context.Context, name string, opt Options) error {
	c, err := h.Read(name)
	if err == nil {
		err = refusal(h.config(name), c.Unread)
	}
	if err == nil {
		_, err = h.spec(c)
	}
	if err != nil {
		return fmt.Errorf("restart guest %s: it could not be started again, and is left as it is: %w", name, err)
	}
	if _, err := h.Stop(ctx, name); err != nil {
		return err
	}
	return h.Start(ctx, name, opt)
}

// Stop ends a guest: it asks its init, waits, ends what is left, and takes
// back addresses and forwards. A guest that does not run is only cleaned up.
func (h *Host) Stop(ctx context.Context, name string) (api.Outcome, error) {
	outcome := api.Unchanged
	err := h.locked(ctx, name, "stop", func() error {
		if err := h.exists(name); err != nil {
			return err
		}
		on, err := h.running(name)
		if err != nil {
			return err
		}
		if on {
			outcome = api.Changed
			err = remove(h.endFile(name))
		} else {
			err = h.noteEnd(name)
		}
		if err != nil {
			return err
		}
		c, err := h.Read(name)
		if err != nil {
			c = h.bare(name, c)
		}
		return h.stop(ctx, c)
	})
	return outcome, err
}

// bare is what there is of a guest without a configuration that can be read: it
// can be stopped and deleted all the same.
func (h *Host) bare(name string, read Config) Config {
	c := Config{Guest: api.Guest{Name: name}, Root: read.Root}
	if st, err := h.readNotes(name); err == nil {
		c.Guest, c.Root = st.runs(name), cmp.Or(c.Root, st.Root)
	}
	return c
}

// patience is how long an init that was asked may take (Linux-VServer's
// sync-timeout).
const patience = 30 * time.Second

// lastPatience is for what init left.
const lastPatience = 5 * time.Second

func (h *Host) stop(ctx context.Context, c Config) error {
	_, cg, err := h.cgroup(c.Name)
	if errors.Is(err, procctx.ErrNoCgroup2) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := cg.Thaw(); err != nil {
		return err
	}
	if pid, err := cg.Init(); err == nil && pid != 0 {
		sig := unix.SIGINT // sysvinit's ctrl-alt-del
		if len(c.Init.Command) > 0 {
			sig = unix.SIGTERM
		}
		asked, err := procctx.Shutdown(pid, sig)
		if err != nil {
			return err
		}
		if asked {
			if _, err := cg.WaitEmptyFor(ctx, patience); err != nil {
				return err
			}
		}
	}
	if err := h.askTheRest(ctx, cg); err != nil {
		return err
	}
	// From here on it ends, whoever gives up waiting for it.
	ctx = context.WithoutCancel(ctx)
	if err := cg.Kill(ctx); err != nil {
		return err
	}
	return h.release(ctx, c.Name)
}

// askTheRest sends SIGTERM to what an init did not end, or did not start to end,
// and waits a moment: a database wants to write.
func (h *Host) askTheRest(ctx context.Context, cg procctx.Cgroup) error {
	init, err := cg.Init()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lastPatience)
	defer cancel()
	return cg.Terminate(ctx, init) // who waits no longer ends it now, whether it has written or not
}

// release takes back what a start gave. The guest has no process any more.
func (h *Host) release(ctx context.Context, name string) error {
	_, cg, err := h.cgroup(name)
	if err != nil {
		return err
	}
	st, err := h.readNotes(name)
	noted := err == nil
	switch {
	case noted && st.recovered:
		// Into the file: the cgroup goes, and with it what is noted there.
		if err := h.writeNotes(name, st); err != nil {
			return err
		}
	case !noted && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	h.saveConsole(name, cg)
	if err := cg.Remove(); err != nil {
		return err
	}
	if !noted {
		return errors.Join(remove(h.runFile(name)), remove(h.pending(name)))
	}
	if err := st.mode().Release(ctx, h.onNetwork(name, cg, &st)); err != nil {
		return err
	}
	if err := errors.Join(remove(h.runFile(name)), remove(h.pending(name))); err != nil {
		return err
	}
	return remove(h.notesFile(name)) // last: as long as it is there, there is something to take back
}
