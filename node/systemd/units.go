package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vsfleet/vsfleet/internal/linux"
)

// Binary is the vsnode that units run: a link to, or a copy of, the one that wrote
// them. vsnodes that are pushed come and go beside it.
const Binary = "/var/lib/vsnode/vsnode"

// Slice is where the units of guests are.
const Slice = "vservers.slice"

// NeverAgain is the exit status of a start that systemd is not to try again.
const NeverAgain = 199

// Unit returns the name of a guest's unit. A guest's name needs no escapes in it.
func Unit(name string) string { return "vserver@" + name + ".service" }

// template is the unit of every guest. What differs between guests is in DropIn.
//
//   - KillMode, KillSignal: ExecStop has the guest end in order. Only if that failed, or
//     while it starts, systemd signals the main process, by what a container's systemd
//     takes for "halt" (SIGTERM would make it execute itself anew) and what other inits
//     ignore; what is left after TimeoutStopSec is killed.
//   - NotifyAccess: ExecStart names the guest's process 1 as the main one before it has
//     said all. systemd's socket is not in a guest's sight.
//   - RestartForceExitStatus: reboot(2) in a guest ends its process 1 by SIGHUP,
//     poweroff by SIGINT.
//   - IgnoreOnIsolate: a guest is no service that a runlevel of the host may miss.
//   - After: what is up before guests goes down after them.
const template = `# Written by vsnode, which replaces it: put changes into a drop-in (systemctl edit).
[Unit]
Description=guest %i
After=network.target network-online.target remote-fs.target nftables.service firewalld.service ufw.service netfilter-persistent.service
Wants=network-online.target
RequiresMountsFor=/etc/vservers /var/lib/vservers /var/lib/vsnode
IgnoreOnIsolate=yes
StartLimitIntervalSec=10min
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=all
Slice=` + Slice + `
Delegate=yes
ExecStart=` + Binary + ` unit start %i
ExecStop=` + Binary + ` unit stop %i
ExecStopPost=` + Binary + ` unit ended %i
KillMode=mixed
KillSignal=SIGRTMIN+3
TimeoutStartSec=5min
TimeoutStopSec=3min
RestartSec=1s
RestartForceExitStatus=SIGHUP
RestartPreventExitStatus=199
OOMPolicy=continue
TasksMax=infinity
KeyringMode=inherit
`

// group is the unit that starts the guests of a mark when the host boots.
const group = `# Written by vsnode install: starts the guests with the mark %i (apps/init/mark).
[Unit]
Description=guests with the mark %i
After=local-fs.target
RequiresMountsFor=/etc/vservers /var/lib/vservers /var/lib/vsnode

[Service]
Type=oneshot
ExecStart=` + Binary + ` unit boot %i
TimeoutStartSec=5min

[Install]
WantedBy=multi-user.target
`

// Guest is what a guest's unit depends on.
type Guest struct {
	Name    string
	Mark    string   // group in which it starts at boot; "": none
	Depends []string // guests that are started before it, and stopped after it
	Restart string   // "no", "on-failure" or "always"; "": no
	Burst   int      // number of starts allowed within Within; 0: the template's
	Within  string   // as systemd writes a time; "": the template's
	Shares  []string // settings by which it competes with other guests, as CPUWeight=200
}

// DropIn returns what a guest's unit has beyond the template, or "".
func (g Guest) DropIn() string {
	var unit, service []string
	if len(g.Depends) > 0 {
		var on []string
		for _, name := range g.Depends {
			on = append(on, Unit(name))
		}
		unit = append(unit, "Wants="+strings.Join(on, " "), "After="+strings.Join(on, " "))
	}
	if g.Mark != "" {
		unit = append(unit, "PartOf="+Target(g.Mark))
	}
	if g.Burst > 0 {
		unit = append(unit, fmt.Sprintf("StartLimitBurst=%d", g.Burst), "StartLimitIntervalSec="+g.Within)
	}
	if g.Restart != "" && g.Restart != "no" {
		service = append(service, "Restart="+g.Restart)
	}
	service = append(service, g.Shares...)
	text := ""
	for _, section := range []struct {
		name  string
		lines []string
	}{{"Unit", unit}, {"Service", service}} {
		if section.lines != nil {
			text += "[" + section.name + "]\n" + strings.Join(section.lines, "\n") + "\n"
		}
	}
	return text
}

// Target returns the name of the target of a mark's guests.
func Target(mark string) string { return "vservers-" + mark + ".target" }

// target returns the text of that.
func target(mark string, guests []Guest) string {
	var wants []string
	for _, g := range guests {
		if g.Mark == mark {
			wants = append(wants, Unit(g.Name))
		}
	}
	slices.Sort(wants)
	return "# Written by vsnode.\n[Unit]\nDescription=guests with the mark " + mark + "\nWants=" + strings.Join(wants, " ") + "\nAfter=" + strings.Join(wants, " ") + "\n"
}

// Units is where units are written to: below run what is gone after a reboot, below etc
// what is not. systemd finds new ones by itself; of those that it knows, Refresh has it
// read what has changed.
type Units struct{ run, etc, binary, lock string }

// Host returns the units of this host.
func Host() Units {
	return Units{"/run/systemd/system", "/etc/systemd/system", Binary, "/run/vservers/..units.lock"}
}

// locked calls write while no other vsnode writes units.
func (u Units) locked(ctx context.Context, write func() error) error {
	if err := os.MkdirAll(filepath.Dir(u.lock), 0o755); err != nil {
		return err
	}
	l, err := linux.LockFile(ctx, u.lock)
	if err != nil {
		return err
	}
	defer l.Unlock()
	return write()
}

// Write writes the template and what the given guests have beyond it.
func (u Units) Write(ctx context.Context, guests ...Guest) error {
	return u.locked(ctx, func() error {
		err := u.placeBinary()
		if err == nil {
			err = put(filepath.Join(u.run, "vserver@.service"), template)
		}
		for _, g := range guests {
			if err != nil {
				return err
			}
			err = put(u.dropIn(Unit(g.Name)), g.DropIn())
		}
		if err != nil {
			return err
		}
		return u.writeSlice()
	})
}

// dropIn returns where a unit's settings are that vsnode adds.
func (u Units) dropIn(unit string) string {
	return filepath.Join(u.run, unit+".d", "50-vserver.conf")
}

// writeSlice has the slice keep as much memory as its guests do together: the kernel protects
// no more of a cgroup than of the one above it.
func (u Units) writeSlice() error {
	found, err := filepath.Glob(u.dropIn(Unit("*")))
	if err != nil {
		return err
	}
	sums := map[string]uint64{}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if n, err := strconv.ParseUint(value, 10, 64); err == nil && strings.HasPrefix(key, "Memory") {
				sums[key] += min(n, math.MaxUint64-sums[key])
			}
		}
	}
	text := ""
	for _, key := range slices.Sorted(maps.Keys(sums)) {
		text += fmt.Sprintf("%s=%d\n", key, sums[key])
	}
	if text != "" {
		text = "[Slice]\n" + text
	}
	return put(u.dropIn(Slice), text)
}

// WriteTarget writes the target of a mark. guests are all of the host.
func (u Units) WriteTarget(ctx context.Context, mark string, guests []Guest) error {
	return u.locked(ctx, func() error { return put(filepath.Join(u.run, Target(mark)), target(mark, guests)) })
}

// Forget removes what a guest's unit has beyond the template.
func (u Units) Forget(ctx context.Context, name string) error {
	return u.locked(ctx, func() error { return errors.Join(put(u.dropIn(Unit(name)), ""), u.writeSlice()) })
}

// Enable has the guests of a mark start when the host boots.
func (u Units) Enable(ctx context.Context, mark string) error {
	return u.locked(ctx, func() error {
		if err := u.placeBinary(); err != nil {
			return err
		}
		unit := filepath.Join(u.etc, "vservers@.service")
		if err := put(unit, group); err != nil {
			return err
		}
		link := u.enabled(mark)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(unit, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

// enabled returns the link by which a mark's guests start at boot.
func (u Units) enabled(mark string) string {
	return filepath.Join(u.etc, "multi-user.target.wants", "vservers@"+mark+".service")
}

// Remove removes all that Enable and Write have written.
func (u Units) Remove(ctx context.Context) error { return u.locked(ctx, u.remove) }

func (u Units) remove() error {
	var errs []error
	for _, pattern := range []string{
		u.enabled("*"), filepath.Join(u.etc, "vservers@.service"),
		u.dropIn(Unit("*")), filepath.Join(u.run, Unit("*")+".d"), u.dropIn(Slice), filepath.Join(u.run, Slice+".d"),
		filepath.Join(u.run, "vserver@.service"), filepath.Join(u.run, Target("*")), u.binary,
	} {
		found, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, path := range found {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// placeBinary has u.binary be this program.
func (u Units) placeBinary() error {
	const self = "/proc/self/exe"
	ours, err := os.Stat(self)
	if err != nil {
		return err
	}
	if have, err := os.Stat(u.binary); err == nil && (os.SameFile(have, ours) ||
		have.Size() == ours.Size() && have.ModTime().Equal(ours.ModTime())) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(u.binary), 0o700); err != nil {
		return err
	}
	if path, err := os.Readlink(self); err == nil {
		beside := u.binary + linux.ReplaceSuffix
		if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if os.Link(path, beside) == nil {
			if linked, err := os.Stat(beside); err == nil && os.SameFile(linked, ours) {
				return os.Rename(beside, u.binary)
			}
			if err := os.Remove(beside); err != nil {
				return err
			}
		}
	}
	if err := linux.CopySelf(u.binary); err != nil { // it is on another filesystem
		return err
	}
	return os.Chtimes(u.binary, ours.ModTime(), ours.ModTime())
}

// put makes a file have a text, or not be there for "".
func put(path, text string) error {
	have, err := os.ReadFile(path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case string(have) == text:
		return nil
	case text == "":
		err := os.Remove(path)
		_ = os.Remove(filepath.Dir(path)) // unless an administrator's are there
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return linux.ReplaceFile(path, []byte(text), 0o644)
}
