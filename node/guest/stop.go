package guest

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/procctx"
)

// Stop ends a guest: it asks its init, waits, ends what is left, and takes
// back addresses and forwards. A guest that does not run is only cleaned up.
func (h *Host) Stop(ctx context.Context, name string) (api.Outcome, error) {
	return h.holdOutcome(ctx, name, "stop", func(g *Guest) (api.Outcome, error) { return g.Stop(ctx) })
}

// Stop is Host.Stop.
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

// initPatience is how long an init that was asked may take (Linux-VServer's
// sync-timeout).
const initPatience = 30 * time.Second

// lastPatience is for what init left.
const lastPatience = 5 * time.Second

// end asks the guest to end, sees to it that it does, and takes back what it had.
func (g *Guest) end(ctx context.Context) error {
	if g.mount == "" {
		return nil
	}
	if err := g.cgroup.Thaw(); err != nil {
		return err
	}
	if err := g.askInit(ctx); err != nil {
		return err
	}
	if err := g.askOthers(ctx); err != nil {
		return err
	}
	// From here on it ends, whoever gives up waiting for it.
	return g.release(context.WithoutCancel(ctx))
}

// askInit has process 1 shut the guest down, as far as it is one that does.
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

// askOthers sends SIGTERM to what an init did not end, or did not start to end,
// and waits a moment: a database wants to write.
func (g *Guest) askOthers(ctx context.Context) error {
	init, err := g.cgroup.Init()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lastPatience)
	defer cancel()
	return g.cgroup.Terminate(ctx, init) // who waits no longer ends it now, whether it has written or not
}
