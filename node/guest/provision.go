package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/devices"
	"github.com/vsfleet/vsfleet/node/hook"
	"github.com/vsfleet/vsfleet/node/procctx"
	"github.com/vsfleet/vsfleet/node/rootfs"
)

// Files compares files of guests with what they should be. Guests that do not exist on
// this host are omitted from the result.
func (h *Host) Files(ctx context.Context, req api.FilesRequest) (api.FilesAnswer, error) {
	var answer api.FilesAnswer
	shown := 0
	for _, want := range req.Guests {
		if err := ctx.Err(); err != nil {
			return answer, err
		}
		missing, err := h.missing(ctx, want)
		if err != nil {
			return answer, err
		}
		if err := h.exists(want.Guest); errors.Is(err, ErrNoGuest) {
			if len(missing) > 0 {
				answer.Guests = append(answer.Guests, api.GuestFilesState{Guest: want.Guest, Missing: missing})
			}
			continue
		}
		var state api.GuestFilesState
		err = h.Hold(ctx, want.Guest, "look at files of", func(g *Guest) (err error) {
			kept, inside := apart(want.Files, pathOf)
			compare := func(files []api.File) func(guestRoot) (api.GuestFilesState, error) {
				return func(r guestRoot) (api.GuestFilesState, error) {
					return h.compareFiles(r, api.GuestFiles{Guest: want.Guest, Files: files}, req.Contents)
				}
			}
			var in api.GuestFilesState
			if state, err = inConfig(g, compare(kept)); err == nil && len(inside) > 0 {
				in, err = inRoot(ctx, g, compare(inside))
			}
			state.Files = append(state.Files, in.Files...)
			return err
		})
		state.Guest, state.Missing = want.Guest, missing
		if err != nil {
			state.Problem = err.Error()
		}
		for i := range state.Files {
			f := &state.Files[i]
			if shown += len(f.Content); len(f.Content) > api.MaxShown || shown > api.MaxShownAll {
				f.Content, f.Large = nil, true
			}
		}
		answer.Guests = append(answer.Guests, state)
	}
	return answer, nil
}

// missing returns what a guest cannot start without and the host lacks.
func (h *Host) missing(ctx context.Context, want api.GuestFiles) (missing []string, err error) {
	if len(want.Sources)+len(want.Devices) == 0 {
		return nil, nil
	}
	set, err := h.hooks(want.Guest)
	if err != nil || set.Has(hook.Initialize) || set.Has(hook.PrepreStart) || set.Has(hook.PreStart) {
		return nil, err
	}
	try := func(what, name string, check func(string) error) {
		_, err := promptly(ctx, func() (struct{}, error) { return struct{}{}, check(name) })
		if err != nil {
			missing = append(missing, what+err.Error())
		}
	}
	for _, name := range want.Sources {
		try("mounts: ", name, procctx.CheckSource)
	}
	for _, name := range want.Devices {
		try("device "+name+": ", name, func(name string) error { _, err := devices.Stat(name); return err })
	}
	return missing, ctx.Err()
}

// FileInfo describes a file of a guest.
func (h *Host) FileInfo(ctx context.Context, name, path string) (info api.FileInfo, err error) {
	err = h.Hold(ctx, name, "look at a file of", func(g *Guest) (err error) {
		if err = h.exists(name); err == nil {
			info, err = inRoot(ctx, g, func(r guestRoot) (api.FileInfo, error) { return r.Stat(path) })
		}
		return err
	})
	return info, err
}

// ReadFile returns the first limit bytes, at most, of a regular file of a guest.
func (h *Host) ReadFile(ctx context.Context, name, path string, limit int64) (data []byte, err error) {
	err = h.Hold(ctx, name, "read a file of", func(g *Guest) (err error) {
		if err = h.exists(name); err == nil {
			data, err = inRoot(ctx, g, func(r guestRoot) ([]byte, error) { return r.Read(path, limit) })
		}
		return err
	})
	return data, err
}

func (h *Host) compareFiles(r guestRoot, want api.GuestFiles, contents bool) (state api.GuestFilesState, err error) {
	if state.Pending, err = h.readPending(want.Guest); err != nil {
		return state, err
	}
	for _, f := range want.Files {
		differs, content, err := r.Compare(f, contents && !f.Secret)
		if err != nil {
			return state, fmt.Errorf("%s: %w", f.Path, err)
		}
		if differs != "" {
			state.Files = append(state.Files, api.FileState{Path: f.Path, Differs: differs, Content: content})
		}
	}
	return state, nil
}

// commandPatience is how long the command of a changed file may take.
const commandPatience = time.Minute

// Provide writes those files of a guest that differ, each completely or not at all, and
// has a running guest act on them. The actions are noted before the first file is
// written, so that the next call does those that a killed one did not reach. Restarts
// are left to the caller.
func (h *Host) Provide(ctx context.Context, name string, list []api.File) (api.Outcome, error) {
	for _, f := range list {
		if !f.Absent && api.FileDigest(f.Content) != f.Digest {
			return api.Failed, fmt.Errorf("write files of guest %s: %s: its content is not what its digest says", name, f.Path)
		}
	}
	var done writeResult
	err := h.Hold(ctx, name, "write files of", func(g *Guest) error {
		err := h.exists(name)
		if err == nil {
			done, err = g.writePlaces(ctx, wanted(list))
		}
		return err
	})
	if err == nil {
		var obeyed bool
		obeyed, err = h.obey(ctx, name, done.pending)
		done.changed = done.changed || obeyed
	}
	if done.changed {
		return api.Changed, err
	}
	return api.Unchanged, err
}

// obey runs the commands that a guest has to run after its files have changed, and
// reports whether there were any.
func (h *Host) obey(ctx context.Context, name string, pending []api.OnChange) (obeyed bool, err error) {
	for err == nil {
		i := slices.IndexFunc(pending, func(o api.OnChange) bool { return !o.Restart })
		if i < 0 {
			break
		}
		obeyed = true
		if err = h.command(ctx, name, pending[i].Command); err == nil {
			pending = slices.Delete(pending, i, i+1)
			err = h.Hold(ctx, name, "write files of", func(*Guest) error { return h.writePending(name, pending) })
		}
	}
	return obeyed, err
}

// writeResult is the result of writing files.
type writeResult struct {
	changed bool
	pending []api.OnChange // what the running guest has to do now
	lost    []string       // files that differ and cannot be written: "/run/x, which was a socket"
}

// place is a file to be written.
type place struct {
	path     string
	onChange api.OnChange
	differs  func(rootfs.Dir) (bool, error)
	write    func(rootfs.Dir) error
	lost     string // why it cannot be written
}

// wanted are the places of files of the inventory.
func wanted(list []api.File) (places []place) {
	for _, f := range list {
		places = append(places, place{
			path: f.Path, onChange: f.OnChange,
			differs: func(r rootfs.Dir) (bool, error) {
				differs, _, err := r.Compare(f, false)
				return differs != "", err
			},
			write: func(r rootfs.Dir) error { return r.Write(f) },
		})
	}
	return places
}

// writeFiles writes those files that differ. It notes what a running guest has to do
// before it writes the first.
func (h *Host) writeFiles(r guestRoot, name string, list []place) (done writeResult, err error) {
	if done.pending, err = h.readPending(name); err != nil {
		return done, err
	}
	for _, f := range list {
		differs, err := f.differs(r.Dir)
		if err == nil && differs && f.lost != "" {
			done.lost = append(done.lost, f.path+", which was "+f.lost)
			continue
		}
		if err == nil && differs {
			done.changed = true
			done.pending = addPending(done.pending, f.onChange)
			if r.running {
				err = h.writePending(name, done.pending)
			}
			if err == nil {
				err = f.write(r.Dir)
			}
		}
		if err != nil {
			return done, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	if !r.running {
		done.pending = nil // it reads the files when it starts
	}
	return done, nil
}

// addPending adds an action unless it is there already.
func addPending(pending []api.OnChange, o api.OnChange) []api.OnChange {
	if o.IsZero() || slices.ContainsFunc(pending, func(p api.OnChange) bool { return reflect.DeepEqual(p, o) }) {
		return pending
	}
	return append(pending, o)
}

// command runs a command in a guest. Its error includes the command's last line of
// output.
func (h *Host) command(ctx context.Context, name string, argv []string) error {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	null, err := linux.Open(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	ours, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	run, err := h.Exec(ctx, name, Program{Argv: argv, Stdin: null, Stdout: theirs, Stderr: theirs})
	theirs.Close()
	if err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	said := make(chan string, 1)
	go func() { said <- lastLineOf(ours) }()
	code, err := waitOrHangUp(ctx, run, nil, func() bool { return false })
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("run %s in the guest: it did not end within %s", argv[0], commandPatience)
	case err != nil:
		return fmt.Errorf("run %s in the guest: %w", argv[0], err)
	case code == 0:
		return nil
	}
	text := ""
	select {
	case text = <-said:
	case <-time.After(time.Second): // it left a process that holds the pipe
	}
	return fmt.Errorf("run %s in the guest: exit status %d: %s", argv[0], code, text)
}

// lastLineOf reads r to its end and returns the last line.
func lastLineOf(r io.Reader) string {
	var tail []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		tail = append(tail, buf[:n]...)
		tail = tail[max(0, len(tail)-len(buf)):]
		if err != nil {
			return lastLine(tail)
		}
	}
}

// pendingFile returns the file that lists what a running guest has yet to do. It is
// removed when the guest ends.
func (p Paths) pendingFile(name string) string { return p.RunDir + "/." + name + ".pending" }

func (h *Host) readPending(name string) ([]api.OnChange, error) {
	b, err := linux.ReadFile(h.pendingFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []api.OnChange
	if err == nil && json.Unmarshal(b, &list) != nil {
		return nil, nil // truncated by a power failure, after which no guest runs
	}
	return list, err
}

func (h *Host) writePending(name string, list []api.OnChange) error {
	if len(list) == 0 {
		return remove(h.pendingFile(name))
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return linux.ReplaceFile(h.pendingFile(name), b, 0o600)
}

// guestRoot is the root filesystem of a guest.
type guestRoot struct {
	rootfs.Dir
	running bool
}

// rootPatience is how long access to a guest's root may take. The guest's init may have
// moved its root onto a filesystem that the guest itself serves and that never answers.
const rootPatience = 30 * time.Second

// inRoot calls f with the root filesystem of a guest: that of its processes if it runs,
// otherwise a mount of its own. f may share only its result with the caller, as the
// call may be abandoned.
func inRoot[T any](ctx context.Context, g *Guest, f func(guestRoot) (T, error)) (T, error) {
	return inRootFor(ctx, g, time.NewTimer(rootPatience), f)
}

// inRootFor is like inRoot, but abandons the call when patience has run out.
func inRootFor[T any](ctx context.Context, g *Guest, patience *time.Timer, f func(guestRoot) (T, error)) (result T, err error) {
	defer patience.Stop()
	c, err := g.Config()
	if err != nil {
		return result, err
	}
	for {
		on, err := g.running()
		if err != nil {
			return result, err
		}
		if !on {
			return inStopped(ctx, g, c, f)
		}
		result, err = inRunning(ctx, g, patience, f)
		if !errors.Is(err, ErrNotRunning) {
			return result, err
		}
		// Its process 1 has ended since, and with it the others do: the kernel kills them.
		if empty, werr := g.cgroup.WaitEmptyFor(ctx, rootPatience); werr != nil || !empty {
			return result, errors.Join(err, werr)
		}
	}
}

// inStopped calls f with the root filesystem of a stopped guest.
func inStopped[T any](ctx context.Context, g *Guest, c Config, f func(guestRoot) (T, error)) (none T, err error) {
	spec, err := g.host.spec(ctx, c)
	if err != nil {
		return none, err
	}
	if err := g.rebase(ctx, c.TrustDomain, c.Image, &spec.Root); err != nil {
		return none, err
	}
	dir, err := spec.Root.Open(ctx)
	if err != nil {
		return none, err
	}
	defer dir.Close()
	return f(guestRoot{Dir: rootfs.Dir{Root: dir}})
}

// inRunning calls f with the root filesystem of the processes of a guest.
// ErrNotRunning: process 1 has ended, and f was not called.
func inRunning[T any](ctx context.Context, g *Guest, patience *time.Timer, f func(guestRoot) (T, error)) (result T, err error) {
	v, err := g.host.look(g.name)
	if err != nil {
		return result, err
	}
	xid := v.Context // the configuration may have been edited since
	type answer struct {
		result T
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		a.err = procctx.AsGuestRoot(xid, func() error {
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", v.initPID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
				return ErrNotRunning
			}
			if err != nil {
				return fmt.Errorf("its root filesystem: %w", err)
			}
			dir := os.NewFile(uintptr(fd), "root")
			defer dir.Close()
			a.result, err = f(guestRoot{rootfs.Dir{Root: dir, Base: procctx.BaseID(xid)}, true})
			return err
		})
		done <- a
	}()
	select {
	case a := <-done:
		return a.result, a.err
	case <-patience.C:
		return result, fmt.Errorf("the guest's root filesystem gave no answer for %s", rootPatience)
	case <-ctx.Done():
		return result, ctx.Err()
	}
}
