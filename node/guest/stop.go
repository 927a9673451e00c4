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

// end asks the guest to end, makes sure that it does, and releases what it had.
func (g *Guest) end(ctx context.Context) error {
	if g.mount == "" {
		return nil
	}
	if err := g.stopUnit(ctx); err != nil {
		return err
	}
	if err := g.cgroup.Thaw(); err != nil {
		return err
	}
	if on, err := g.running(); err != nil {
		return err
	} else if on {
		g.hookOrWarn(ctx, hook.PreStop)
	}
	e := g.ending()
	if err := g.askInit(ctx, e); err != nil {
		return err
	}
	if err := g.askOthers(ctx, e.Kill); err != nil {
		return err
	}
	// From here on the guest ends, even if the caller gives up waiting.
	return g.release(context.WithoutCancel(ctx))
}

// askInit has the guest shut down: by a command of its configuration or its init style,
// or by process 1, if that is an init that can.
func (g *Guest) askInit(ctx context.Context, e ending) error {
	pid, err := g.cgroup.Init()
	if err != nil || pid == 0 {
		return nil
	}
	if len(e.Command) > 0 {
		// A command that fails must not keep a guest from being stopped.
		err := g.runStopCommand(ctx, e.Command, e.Wait)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		warn(ctx, "its stop command failed, and its process 1 is asked: "+err.Error())
	}
	asked, err := procctx.Shutdown(pid, unix.Signal(e.Signal))
	if err != nil || !asked {
		return err
	}
	_, err = g.cgroup.WaitEmptyFor(ctx, e.Wait)
	return err
}

// askOthers sends the processes that init did not end the signals of the kill sequence:
// a database wants to write.
func (g *Guest) askOthers(ctx context.Context, steps []killStep) error {
	init, err := g.cgroup.Init()
	if err != nil {
		return err
	}
	for _, step := range steps {
		if step.Signal == int(unix.SIGKILL) {
			return nil // release kills them
		}
		if err := g.askBy(ctx, step, init); err != nil {
			return err
		}
	}
	return nil
}

func (g *Guest) askBy(ctx context.Context, step killStep, init int) error {
	ctx, cancel := context.WithTimeout(ctx, step.Wait)
	defer cancel()
	return g.cgroup.Terminate(ctx, unix.Signal(step.Signal), init)
}
