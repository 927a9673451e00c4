package guest

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/hook"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Stop ends a guest: it asks the guest's init to shut down, waits, kills what is left,
// and releases addresses and forwards. If the guest does not run, it only cleans up.
func (h *Host) Stop(ctx context.Context, name string) (api.Outcome, error) {
	return h.holdOutcome(ctx, name, "stop", func(g *Guest) (api.Outcome, error) { return g.Stop(ctx) })
}

// Stop is like Host.Stop; the guest's lock is already held.
func (g *Guest) Stop(ctx context.Context) (api.Outcome, error) {
	if err := g.host.exists(g.name); err != nil {
		return api.Unchanged, err
	}
	on, err := g.running()
	if err != nil {
		return api.Unchanged, err
	}
	if !on {
		if err := g.noteEnd(); err != nil {
			return api.Unchanged, err
		}
		return api.Unchanged, g.end(ctx)
	}
	if err := remove(g.host.endFile(g.name)); err != nil {
		return api.Changed, err
	}
	return api.Changed, g.end(ctx)
}

// initPatience is how long init may take to shut down (Linux-VServer's sync-timeout).
const initPatience = 30 * time.Second

// lastPatience is how long the processes that init left may take.
const lastPatience = 5 * time.Second

// end asks the guest to end, makes sure that it does, and releases what it had.
func (g *Guest) end(ctx context.Context) error {
	if g.mount == "" {
		return nil
	}
	if err := g.cgroup.Thaw(); err != nil {
		return err
	}
	if on, err := g.running(); err != nil {
		return err
	} else if on {
		g.hookOrWarn(ctx, hook.PreStop)
	}
	if err := g.askInit(ctx); err != nil {
		return err
	}
	if err := g.askOthers(ctx); err != nil {
		return err
	}
	// From here on the guest ends, even if the caller gives up waiting.
	return g.release(context.WithoutCancel(ctx))
}

// askInit has process 1 shut the guest down, if it is an init that can.
func (g *Guest) askInit(ctx context.Context) error {
	pid, err := g.cgroup.Init()
	if err != nil || pid == 0 {
		return nil
	}
	sig := unix.SIGINT // sysvinit's ctrl-alt-del
	if len(g.knownConfig().Init.Command) > 0 {
		sig = unix.SIGTERM
	}
	asked, err := procctx.Shutdown(pid, sig)
	if err != nil || !asked {
		return err
	}
	_, err = g.cgroup.WaitEmptyFor(ctx, initPatience)
	return err
}

// askOthers sends SIGTERM to the processes that init did not end, and waits a moment: a
// database wants to write.
func (g *Guest) askOthers(ctx context.Context) error {
	init, err := g.cgroup.Init()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lastPatience)
	defer cancel()
	return g.cgroup.Terminate(ctx, init) // when ctx ends they are killed, whether they have written or not
}
