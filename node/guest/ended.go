package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// How long a guest is watched after its start. What cannot work mostly ends
// at once: a wrong option, a port that is taken, systemd without inotify.
var (
	settleCommand = 500 * time.Millisecond
	settleInit    = time.Second
)

// EndedError says that a guest ended while its start was watched. Nothing of it
// is left but End, which State tells from then on.
type EndedError struct{ End api.End }

func (e *EndedError) Error() string {
	text := "it ended at once: " + e.End.String()
	if e.End.LastOutput == "" {
		return text + "; it wrote nothing to its console"
	}
	return fmt.Sprintf("%s; its last output: %q", text, e.End.LastOutput)
}

// settle watches a guest that was just started. If it ends, all that it had is
// taken back, and the error says how it ended. When ctx ends the guest has
// started all the same.
func (h *Host) settle(ctx context.Context, c Config, p procctx.Process) error {
	if !h.Settle {
		return nil
	}
	d := settleInit
	if len(c.Init.Command) > 0 {
		d = settleCommand
	}
	ws, ended, err := p.End(ctx, d)
	if err != nil || !ended {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	_, cg, err := h.cgroup(c.Name)
	if err != nil {
		return err
	}
	end := h.end(c.Name, cg)
	end.Seen = true
	if ws.Signaled() {
		end.Signal = unix.SignalName(ws.Signal())
	} else {
		end.Status = ws.ExitStatus()
	}
	ctx = context.WithoutCancel(ctx)
	// Process 1 is the last of its guest, but for who is on the way in.
	if err := errors.Join(h.writeEnd(c.Name, end), cg.Kill(ctx), h.release(ctx, c.Name)); err != nil {
		return err
	}
	return &EndedError{end}
}

// end is what can still be seen of a guest that ended by itself.
func (h *Host) end(name string, cg procctx.Cgroup) api.End {
	end := api.End{Time: time.Now().Truncate(time.Millisecond), OOMKills: cg.OOMKills()}
	if said, err := h.output(name); err == nil {
		end.LastOutput = lastLine(said.Bytes)
	}
	return end
}

// noteEnd remembers that a guest ended by itself, before what it left is taken
// back. Of a start that was killed there is nothing to say.
func (h *Host) noteEnd(name string) error {
	end, err := h.unswept(name)
	if err != nil || end == nil {
		return nil // a state that cannot be read is release's to report
	}
	return h.writeEnd(name, *end)
}

// unswept is the end of a guest that does not run and was not cleaned up after.
func (h *Host) unswept(name string) (*api.End, error) {
	st, err := h.readNotes(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.Done {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, cg, err := h.cgroup(name)
	if err != nil {
		return nil, err
	}
	end := h.end(name, cg)
	return &end, nil
}

func (h *Host) writeEnd(name string, end api.End) error {
	b, err := json.Marshal(end)
	if err != nil {
		return err
	}
	beside := h.endFile(name) + ".new"
	if err := os.WriteFile(beside, b, 0o600); err != nil {
		return err
	}
	return os.Rename(beside, h.endFile(name))
}

// lastEnd is how a guest that does not run ended, nil if it was stopped.
func (h *Host) lastEnd(name string) *api.End {
	if end, err := h.unswept(name); err == nil && end != nil {
		return end
	}
	b, err := os.ReadFile(h.endFile(name))
	var end api.End
	if err != nil || json.Unmarshal(b, &end) != nil {
		return nil // only a help for people
	}
	return &end
}

func (p Paths) endFile(name string) string { return filepath.Join(p.RunDir, "."+name+".ended") }
