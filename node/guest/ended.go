package guest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
	"github.com/vsfleet/vsfleet/node/exits"
)

// How long a guest is watched after its start. What cannot work mostly fails at once: a
// wrong option, a port in use, systemd without inotify.
var (
	watchCommand = 500 * time.Millisecond
	watchInit    = time.Second
)

// EndedError means that a guest ended while its start was watched. Nothing remains of
// it but End, which State returns from then on.
type EndedError struct{ End api.End }

func (e *EndedError) Error() string {
	text := "it ended at once: " + e.End.String()
	if e.End.LastOutput == "" {
		if e.End.Status == 127 { // as shells and our process 1 have it
			text += ": the guest has no such program (or not the interpreter or loader that it names)"
		}
		return text + "; it wrote nothing to its console"
	}
	return fmt.Sprintf("%s; its last output: %q", text, e.End.LastOutput)
}

// watch waits a moment after a start, or until the guest is ready, and returns an
// EndedError if the guest ends. If ctx ends first, the guest counts as started.
func (s *start) watch(ctx context.Context) error {
	if s.OnRunning != nil {
		s.OnRunning()
	}
	if s.notifier != nil && s.notifier != s.host.notifier(s.name) {
		defer s.notifier.close()
	}
	var d time.Duration
	switch {
	case s.synced():
		d = cmp.Or(s.config.Patience, initPatience)
	case !s.host.WatchStarts || s.unwatched:
		return nil
	case s.config.ownInit():
		d = watchInit
	default:
		d = watchCommand
	}
	watched, ready := context.WithCancelCause(ctx)
	defer ready(nil)
	go s.awaitReady(watched, ready)
	ws, ended, err := s.process.End(watched, d)
	var unready *notReadyError
	if errors.As(context.Cause(watched), &unready) && !ended { // it may be for the guest's end
		if ws, ended, err = s.process.End(ctx, watchCommand); err == nil && !ended && s.Warn != nil {
			s.Warn("it goes on, and whether it is ready is not known: apps/init/cmd.start-sync: " + unready.Error())
		}
	}
	if err != nil || !ended {
		if s.synced() && watched.Err() == nil && s.Warn != nil {
			s.Warn(fmt.Sprintf("it is not ready after %v, and goes on: %s", d, s.waitsFor()))
		}
		if watched.Err() != nil {
			return nil
		}
		return err
	}
	end := s.host.lookAtEnd(s.name, s.cgroup)
	setStatus(&end, ws)
	if err := s.host.writeEnd(s.name, end); err != nil {
		return err
	}
	return &EndedError{end}
}

func setStatus(end *api.End, ws unix.WaitStatus) {
	end.Seen, end.Status, end.Signal = true, 0, ""
	if ws.Signaled() {
		end.Signal = unix.SignalName(ws.Signal())
	} else {
		end.Status = ws.ExitStatus()
	}
}

// lookAtEnd returns what can still be seen of a guest that ended by itself.
func (h *Host) lookAtEnd(name string, cg cgroup.Dir) api.End {
	end := api.End{Time: time.Now().Truncate(time.Millisecond), OOMKills: cg.OOMKills()}
	if said, err := h.output(name); err == nil {
		end.LastOutput = lastLine(said.Bytes)
	}
	if x, err := exits.Look(string(cg)); err == nil {
		end.Time = time.Now().Add(x.Since - linux.SinceBoot()).Truncate(time.Millisecond)
		setStatus(&end, x.How)
	}
	return end
}

// rebootSignal is what process 1 of a pid namespace ends by when it reboots.
const rebootSignal = "SIGHUP"

// watchEnd has the kernel note how the guest ends, from before its program runs. Without
// that it runs as well.
func (s *start) watchEnd(context.Context) error {
	s.spec.Born = func(pid int) {
		pidns, err := linux.Open(linux.ProcFile(pid, "ns/pid"), os.O_RDONLY, 0)
		if err != nil {
			return // it was killed: launch fails
		}
		defer pidns.Close()
		if err := exits.Watch(s.spec.Cgroup, pidns); err != nil && s.Warn != nil {
			s.Warn("a reboot in the guest will look like a crash, and it stays stopped: " + err.Error())
		}
	}
	return nil
}

func (g *Guest) forgetEnd(context.Context) error { return exits.Forget(string(g.cgroup)) }

// restartRebooted starts a guest again that has rebooted itself: what its end was is
// recorded, and what it had of the host is released. If it does not start, that is
// recorded too.
func (g *Guest) restartRebooted(ctx context.Context, end api.End) error {
	if end.Signal != rebootSignal || g.host.exists(g.name) != nil {
		return nil
	}
	err := g.Start(ctx, Options{unwatched: true})
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	end.Restart = err.Error()
	return g.host.writeEnd(g.name, end)
}

// noteEnd records that the guest ended by itself, before its resources are released.
// For a start that was killed there is nothing to record.
func (g *Guest) noteEnd() error {
	n, err := g.notes()
	if err != nil || !n.Done {
		return nil // release reports notes that cannot be read
	}
	return g.host.writeEnd(g.name, g.host.lookAtEnd(g.name, g.cgroup))
}

func (h *Host) writeEnd(name string, end api.End) error {
	b, err := json.Marshal(end)
	if err != nil {
		return err
	}
	return linux.ReplaceFile(h.endFile(name), b, 0o600)
}

// lastEnd returns how a guest that is not running ended; nil if it was stopped.
func (h *Host) lastEnd(name string) *api.End {
	if n, err := h.readNotes(name); err == nil && n.Done { // nobody has cleaned up yet
		if _, cg, err := h.cgroup(name); err == nil {
			end := h.lookAtEnd(name, cg)
			return &end
		}
	}
	b, err := linux.ReadFile(h.endFile(name))
	var end api.End
	if err != nil || json.Unmarshal(b, &end) != nil {
		return nil // only a convenience for people
	}
	return &end
}

func (p Paths) endFile(name string) string { return filepath.Join(p.RunDir, "."+name+".ended") }
