package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/systemd"
)

// Where systemd runs the host, a guest is started and stopped by its unit. Start and Stop
// ask systemd, which begins another vsnode within the unit (inunit.go): that takes the
// same steps as elsewhere. It works under the lock of the vsnode that asks, which lends
// it (linux.Lock.Lend) and does nothing but wait; systemctl and a host that boots ask as
// well, and nobody lends them one.

// unified is where the only hierarchy of a host is mounted: of two, systemd's units have
// their controllers in the other.
const unified = "/sys/fs/cgroup"

// hasUnit reports whether the guest is to live in a unit of systemd.
func (g *Guest) hasUnit() bool { return g.host.UseUnits && g.mount == unified && systemd.Runs() }

// manager returns a connection to systemd if it is to be asked, and otherwise nil.
func (g *Guest) manager(ctx context.Context, warn func(string)) (*systemd.Manager, error) {
	if g.inUnit || !g.hasUnit() {
		return nil, nil
	}
	m, err := systemd.Dial(ctx)
	if !errors.Is(err, systemd.ErrAbsent) {
		return m, err
	}
	// Once: it will be so for each guest.
	f, ferr := os.OpenFile(filepath.Join(g.host.RunDir, "..no-systemd"), os.O_CREATE|os.O_EXCL, 0o600)
	if ferr == nil {
		f.Close()
		if warn != nil {
			warn(fmt.Sprintf("guests are not in systemd's tree, and are killed when the host shuts down: %v", err))
		}
	}
	return nil, nil
}

// startUnit has systemd start the guest.
func (g *Guest) startUnit(ctx context.Context, m *systemd.Manager, opt Options) error {
	c, err := g.Config()
	if err != nil {
		return err
	}
	s := &start{Guest: g, Options: opt}
	if err := s.refuseRunning(ctx); err != nil {
		return err
	}
	if err := systemd.Host().Write(ctx, unitOf(c)); err != nil {
		return err
	}
	if err := m.Refresh(ctx, g.host.reloads.do, systemd.Unit(g.name), systemd.Slice); err != nil {
		return err
	}
	// That it failed before, or was started often, is no reason not to start it now.
	if err := m.ResetFailed(ctx, systemd.Unit(g.name)); err != nil {
		return err
	}
	result, err := g.runUnit(ctx, m, systemd.Start, opt)
	said := g.host.takeReport(g.name)
	for _, text := range said.Warnings {
		if opt.Warn != nil {
			opt.Warn(text)
		}
	}
	switch {
	case err != nil:
		return err
	case said.End != nil:
		return &EndedError{*said.End}
	case said.Error != "":
		return errors.New(said.Error)
	case result == "dependency":
		return fmt.Errorf("what it depends on was not started (systemctl list-dependencies --failed %s)", systemd.Unit(g.name))
	case result != "done":
		why, _ := m.Property(ctx, systemd.Unit(g.name), "Service", "Result")
		return fmt.Errorf("systemd did not start it: %s", strings.Join([]string{result, why, "see journalctl -u " + systemd.Unit(g.name)}, ", "))
	}
	return nil
}

// stopUnit has systemd stop the guest's unit, if it has one. It also keeps systemd from
// starting a guest anew that has just ended.
func (g *Guest) stopUnit(ctx context.Context) error {
	m, err := g.manager(ctx, nil)
	if m == nil {
		return err
	}
	defer m.Close()
	unit := systemd.Unit(g.name)
	_, err = g.runUnit(ctx, m, systemd.Stop, Options{})
	if systemd.IsNotLoaded(err) {
		return nil
	}
	if ctx.Err() != nil {
		return err // systemd goes on with it
	}
	// A guest that had to be killed is stopped all the same, and whatever systemd could not
	// do is done now.
	_ = m.ResetFailed(ctx, unit)
	return nil
}

// runUnit has systemd start or stop the guest's unit, lends the guest's lock to what
// that begins, and waits. A start that is broken off is taken back.
func (g *Guest) runUnit(ctx context.Context, m *systemd.Manager, what string, opt Options) (result string, err error) {
	if err := remove(g.host.reportFile(g.name)); err != nil {
		return "", err
	}
	note, err := json.Marshal(lent{Ready: g.host.notifier(g.name) != nil, Rescue: opt.Rescue, Sync: opt.Sync, Unwatched: opt.unwatched})
	if err != nil {
		return "", err
	}
	endLending, err := g.lock.Lend(g.host.lentSocket(g.name), note)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, endLending()) }()
	stopWatching := g.watchUnit(what, opt.OnRunning)
	unit := systemd.Unit(g.name)
	result, err = m.Run(ctx, what, unit)
	stopWatching()
	if err != nil && ctx.Err() != nil && what == systemd.Start {
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), unitPatience)
		defer cancel()
		again, derr := systemd.Dial(back)
		if derr == nil {
			_, derr = again.Run(back, systemd.Stop, unit)
			again.Close()
		}
		if derr != nil {
			g.lock.Leave()
			err = errors.Join(err, fmt.Errorf("the start could not be taken back: %w", derr))
		}
	} else if err != nil {
		g.lock.Leave()
	}
	g.notesRead, g.noted = false, nil
	_, g.cgroup, _ = g.host.cgroup(g.name)
	return result, err
}

// unitPatience is how long systemd may take to take a start back.
const unitPatience = 5 * time.Minute

// watchUnit calls onRunning, if it is not nil, when the guest runs that a unit starts.
func (g *Guest) watchUnit(what string, onRunning func()) (stop func()) {
	if onRunning == nil || what != systemd.Start {
		return func() {}
	}
	ended, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if n, err := g.host.fileNotes(g.name); err == nil && n.Done {
				onRunning()
				return
			}
		}
	}()
	return func() { close(ended); <-over }
}

// lent is what a vsnode that lends a guest's lock tells the unit's.
type lent struct {
	Ready bool `json:"ready,omitempty"` // it waits for the guest's READY=1
	// The options of a start.
	Rescue    *Rescue `json:"rescue,omitempty"`
	Sync      bool    `json:"sync,omitempty"`
	Unwatched bool    `json:"unwatched,omitempty"`
}

func (p Paths) lentSocket(name string) string { return filepath.Join(p.RunDir, "."+name+".lent") }
func (p Paths) reportFile(name string) string { return filepath.Join(p.RunDir, "."+name+".report") }
func (p Paths) readyFile(name string) string  { return filepath.Join(p.RunDir, "."+name+".ready") }

// report is what a start in a unit has to say to the vsnode that asked for it.
type report struct {
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"`
	End      *api.End `json:"end,omitempty"` // the guest ended while it was watched
}

func (h *Host) takeReport(name string) (r report) {
	b, err := linux.ReadFile(h.reportFile(name))
	if err == nil {
		_ = json.Unmarshal(b, &r) // ours; without it systemd's result is told
		_ = remove(h.reportFile(name))
	}
	return r
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return linux.ReplaceFile(path, b, 0o600)
}

// unitOf returns what the guest's unit depends on.
func unitOf(c Config) systemd.Guest {
	g := systemd.Guest{Name: c.Name, Mark: c.Boot.Mark, Depends: c.Boot.Depends, Restart: c.Boot.Restart.Policy}
	if r := c.Boot.Restart; r.Starts > 0 {
		g.Burst, g.Within = r.Starts, strconv.Itoa(int(r.Within.Seconds()))
	}
	g.Shares = unitShares(c.Limits)
	return g
}

// unitShares returns the limits that guests have against each other: the kernel compares
// cgroups with those beside them, and what is beside a guest's is in its unit.
func unitShares(l api.Limits) (list []string) {
	for _, share := range []struct {
		property string
		value    int64
	}{
		{"CPUWeight", int64(l.CPUWeight)}, {"IOWeight", int64(l.IOWeight)},
		{"MemoryLow", l.MemoryLowBytes}, {"MemoryMin", l.MemoryMinBytes},
	} {
		if share.value > 0 {
			list = append(list, fmt.Sprintf("%s=%d", share.property, share.value))
		}
	}
	return list
}

// syncUnit brings what systemd knows of a configured guest up to date, and has it start
// at boot if it is to.
func (g *Guest) syncUnit(ctx context.Context) error {
	if !g.hasUnit() {
		return nil
	}
	c, err := g.Config()
	if err != nil {
		return err
	}
	u := systemd.Host()
	if c.Boot.Mark != "" {
		err = u.Enable(ctx, c.Boot.Mark)
	}
	if err == nil {
		err = u.Write(ctx, unitOf(c))
	}
	var m *systemd.Manager
	if err == nil {
		if m, err = g.manager(ctx, nil); m != nil {
			defer m.Close()
			err = m.Refresh(ctx, g.host.reloads.do, systemd.Unit(g.name), systemd.Slice)
		}
	}
	if err != nil {
		return fmt.Errorf("it is configured, but systemd was not told: %w", err)
	}
	return nil
}

// forgetUnit removes what the guest's unit had beyond the template.
func (g *Guest) forgetUnit(ctx context.Context) error {
	if !g.hasUnit() {
		return nil
	}
	if err := systemd.Host().Forget(ctx, g.name); err != nil {
		return err
	}
	m, err := g.manager(ctx, nil)
	if m == nil {
		return err
	}
	defer m.Close()
	return m.Refresh(ctx, g.host.reloads.do, systemd.Slice)
}
