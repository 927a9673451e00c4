package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/cgroup"
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
		return text + "; it wrote nothing to its console"
	}
	return fmt.Sprintf("%s; its last output: %q", text, e.End.LastOutput)
}

// watch waits a moment after a start and returns an EndedError if the guest ends. If
// ctx ends first, the guest counts as started.
func (s *start) watch(ctx context.Context) error {
	if s.OnRunning != nil {
		s.OnRunning()
	}
	if !s.host.WatchStarts {
		return nil
	}
	d := watchInit
	if len(s.config.Init.Command) > 0 {
		d = watchCommand
	}
	ws, ended, err := s.process.End(ctx, d)
	if err != nil || !ended {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	end := s.host.lookAtEnd(s.name, s.cgroup)
	end.Seen = true
	if ws.Signaled() {
		end.Signal = unix.SignalName(ws.Signal())
	} else {
		end.Status = ws.ExitStatus()
	}
	if err := s.host.writeEnd(s.name, end); err != nil {
		return err
	}
	return &EndedError{end}
}

// lookAtEnd returns what can still be seen of a guest that ended by itself.
func (h *Host) lookAtEnd(name string, cg cgroup.Dir) api.End {
	end := api.End{Time: time.Now().Truncate(time.Millisecond), OOMKills: cg.OOMKills()}
	if said, err := h.output(name); err == nil {
		end.LastOutput = lastLine(said.Bytes)
	}
	return end
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
	b, err := os.ReadFile(h.endFile(name))
	var end api.End
	if err != nil || json.Unmarshal(b, &end) != nil {
		return nil // only a convenience for people
	}
	return &end
}

func (p Paths) endFile(name string) string { return filepath.Join(p.RunDir, "."+name+".ended") }
