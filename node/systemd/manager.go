package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// Where sd_booted(3) looks, and systemd's socket for root.
var (
	booted  = "/run/systemd/system"
	private = "/run/systemd/private"
)

// Runs reports whether systemd runs this host.
func Runs() bool {
	info, err := os.Lstat(booted)
	return err == nil && info.IsDir()
}

const (
	managerPath  = "/org/freedesktop/systemd1"
	managerIface = "org.freedesktop.systemd1.Manager"
)

// patience is how long systemd may take to answer, jobs aside: to read all units anew
// takes long on a busy host, and the kernel may keep it waiting.
const patience = 5 * time.Minute

// Manager is a connection to systemd. It is for one goroutine.
type Manager struct {
	bus  *bus
	jobs map[string]string // results of jobs that have ended, by their paths
}

// ErrAbsent means that nobody listens on systemd's socket.
var ErrAbsent = errors.New("systemd is not there")

// Dial connects to systemd.
func Dial(ctx context.Context) (*Manager, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b, err := connect(ctx, private)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	return &Manager{bus: b, jobs: map[string]string{}}, nil
}

// Close ends the connection; jobs go on.
func (m *Manager) Close() { m.bus.conn.Close() }

// Error is a refusal of systemd's.
type Error struct{ Name, Text string }

func (e *Error) Error() string { return "systemd: " + e.Text }

// IsNotLoaded reports whether systemd said that it does not know a unit.
func IsNotLoaded(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.Name == "org.freedesktop.systemd1.NoSuchUnit"
}

// call calls a method and returns what it answers.
func (m *Manager) call(ctx context.Context, path, iface, member string, args ...string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer m.bus.until(ctx)()
	serial, err := m.bus.send(path, iface, member, args...)
	for err == nil {
		var got message
		if got, err = m.next(); err != nil || got.reply != serial {
			continue
		}
		values, verr := got.values()
		if got.kind == methodError {
			return nil, &Error{got.name, append(values, got.name)[0]}
		}
		return values, verr
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, fmt.Errorf("ask systemd (%s): %w", member, err)
}

// next reads a message, and takes note of jobs that end.
func (m *Manager) next() (message, error) {
	got, err := m.bus.read()
	if err == nil && got.kind == signalSent && got.member == "JobRemoved" {
		if v, verr := got.values(); verr == nil && len(v) == 4 {
			m.jobs[v[1]] = v[3]
		}
	}
	return got, err
}

// Refresh has systemd read its units again, by reload, if it knows one of the given
// ones as it was before.
func (m *Manager) Refresh(ctx context.Context, reload func(call func() error) error, units ...string) error {
	for _, unit := range units {
		old, err := m.Property(ctx, unit, "Unit", "NeedDaemonReload")
		switch {
		case IsNotLoaded(err):
		case err != nil:
			return err
		case old != "0":
			return reload(func() error { return m.reload(ctx) })
		}
	}
	return nil
}

// reload has systemd read all units again.
func (m *Manager) reload(ctx context.Context) error {
	_, err := m.call(ctx, managerPath, managerIface, "Reload")
	return err
}

// RemoveSlice has systemd forget units whose files are gone, and their slice with its
// cgroup: systemd keeps an empty one.
func (m *Manager) RemoveSlice(ctx context.Context, slice string) error {
	if err := m.reload(ctx); err != nil {
		return err
	}
	if _, err := m.Run(ctx, Stop, slice); err != nil && !IsNotLoaded(err) {
		return err
	}
	return nil
}

// ResetFailed forgets that a unit has failed, and how often it was started.
func (m *Manager) ResetFailed(ctx context.Context, unit string) error {
	_, err := m.call(ctx, managerPath, managerIface, "ResetFailedUnit", unit)
	if IsNotLoaded(err) {
		return nil
	}
	return err
}

// What Run can do with a unit.
const (
	Start = "StartUnit"
	Stop  = "StopUnit"
)

// Run has systemd start or stop a unit and waits for the end of that job. It returns
// the job's result: "done", "failed", "canceled", "timeout", "dependency" and others of
// systemd's own. When ctx ends, the job goes on.
func (m *Manager) Run(ctx context.Context, what, unit string) (result string, err error) {
	job, err := m.Queue(ctx, what, unit)
	if err != nil {
		return "", err
	}
	defer m.bus.until(ctx)()
	for {
		if result, ended := m.jobs[job]; ended {
			return result, nil
		}
		if _, err := m.next(); err != nil {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			// systemd has executed itself anew: the job goes on, and is followed by its unit.
			return follow(ctx, unit)
		}
	}
}

// Queue has systemd start or stop a unit, and does not wait for it.
func (m *Manager) Queue(ctx context.Context, what, unit string) (job string, err error) {
	answer, err := m.call(ctx, managerPath, managerIface, what, unit, "replace")
	if err != nil {
		return "", err
	}
	return answer[0], nil
}

// follow waits until a unit is neither on its way up nor down.
func follow(ctx context.Context, unit string) (result string, err error) {
	const pause = 200 * time.Millisecond
	for tries := 0; ; tries++ {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(pause):
		}
		m, err := Dial(ctx)
		if err != nil {
			if tries > int(patience/pause) {
				return "", err
			}
			continue
		}
		state, err := m.Property(ctx, unit, "Unit", "ActiveState")
		m.Close()
		switch {
		case IsNotLoaded(err), state == "active", state == "inactive":
			return "done", nil
		case state == "failed":
			return "failed", nil
		}
	}
}

// Property returns a property of a loaded unit. Of "Unit" or "Service" is which.
func (m *Manager) Property(ctx context.Context, unit, which, name string) (string, error) {
	path, err := m.call(ctx, managerPath, managerIface, "GetUnit", unit)
	if err != nil {
		return "", err
	}
	answer, err := m.call(ctx, path[0], "org.freedesktop.DBus.Properties", "Get", "org.freedesktop.systemd1."+which, name)
	if err != nil {
		return "", err
	}
	return answer[0], nil
}
