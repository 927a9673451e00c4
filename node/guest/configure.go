package guest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/vsfleet/vsfleet/node/procctx"
)

// live brings a running guest as near to its configuration as can be without a
// restart: its limits, its ports and forwards, and whether it may ask for metadata. Other addresses, another mode
// or device need one: programs are bound to what was there when they began. It
// says whether there was anything to do. Killed in between it is called again:
// what the guest runs with still differs from what is configured.
func (h *Host) live(ctx context.Context, c Config) (changed bool, err error) {
	st, err := h.readNotes(c.Name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.Runs == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	to := *st.Runs
	if c.Limits != to.Limits {
		if err := h.limit(c); err != nil {
			return false, err
		}
		was := to.Limits.Processes
		to.Limits = c.Limits
		if counted, err := h.countsProcesses(); err != nil {
			return false, err
		} else if !counted {
			to.Limits.Processes = was // until the next start
		}
	}
	samePlace := to.Network
	samePlace.Ports, samePlace.Forwards, samePlace.Metadata = c.Network.Ports, c.Network.Forwards, c.Network.Metadata
	network := reflect.DeepEqual(samePlace, c.Network) && !reflect.DeepEqual(to.Network, c.Network)
	if network {
		_, unlock, err := h.lockClaims()
		if err != nil {
			return false, err
		}
		defer unlock() // when the change is noted
		if err := h.free(ctx, c.Guest, ""); err != nil {
			return false, err
		}
		to.Network = c.Network
		after := st
		after.Runs = &to
		_, cg, err := h.cgroup(c.Name)
		if err != nil {
			return false, err
		}
		if err := st.mode().Update(ctx, h.onNetwork(c.Name, cg, &after)); err != nil {
			return false, err
		}
	}
	if reflect.DeepEqual(to, *st.Runs) {
		return false, nil
	}
	st.Runs = &to
	// The packet filter is made from what is written down; a vsnode that comes
	// after a killed one finishes it.
	st.Done = !network
	if network {
		if err := h.change(); err != nil {
			return false, err
		}
		h.index.hold(c.Name, st)
	}
	if err := h.writeNotes(c.Name, st); err != nil {
		return true, err
	}
	return true, h.finish(ctx, c.Name)
}

// limit writes the limits of a running guest. One that is gone is "max".
func (h *Host) limit(c Config) error {
	mount, cg, err := h.cgroup(c.Name)
	if err != nil {
		return err
	}
	counted, err := h.countsProcesses()
	if err != nil {
		return err
	}
	for _, file := range []string{memoryFile, cpuFile, pidsFile} {
		if file == pidsFile && !counted {
			continue
		}
		value, given := c.Cgroup[file]
		if !given {
			// Where the controller was never needed there is nothing to lift.
			if _, err := os.Stat(filepath.Join(string(cg), file)); err != nil {
				continue
			}
			value = "max"
		}
		if err := cg.Limit(mount, file, value); err != nil {
			return err
		}
	}
	return nil
}

// countsProcesses reports whether a cgroup bounds processes here. If not, the
// user namespace does, from start to end.
func (h *Host) countsProcesses() (bool, error) {
	mount, err := procctx.CgroupMount()
	if err != nil {
		return false, err
	}
	return procctx.HasController(mount, "pids")
}
