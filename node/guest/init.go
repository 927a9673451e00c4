package guest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/linux"
	"github.com/vsfleet/vsfleet/node/api"
)

// initConfig is what the files in apps/init say beside api.Init.
type initConfig struct {
	Env         []string // environment
	Runlevel    string   // runlevel.start, runlevel
	StopLevel   string   // runlevel.stop
	StartSync   []string // cmd.start-sync
	Sync        bool     // sync
	StopCommand []string // cmd.stop
	KillSeq     []killStep
	Patience    time.Duration // apps/vshelper/sync-timeout
}

// style is an init style of Linux-VServer whose scripts are run without an init of the
// guest's own: process 1 is ours (procctx.Spec.Reaper), and ends when nothing is left.
type style struct {
	level       string // default of runlevel.start
	stopLevel   string
	start, stop string // scripts for sh; $1 is the runlevel, $2 that before it
}

// styleOf returns the style of that name; without scripts if it is none of these.
func styleOf(name string) style {
	switch name {
	case "sysv":
		return style{level: "3", stopLevel: "6", start: rcScript, stop: rcScript}
	case "openrc", "gentoo": // its old name
		return style{
			level: "default", stopLevel: "shutdown",
			start: `command -v openrc >/dev/null || { echo "no openrc here: install openrc in the guest, or use style plain" >&2; exit 127; }
mkdir -p /run/openrc; openrc sysinit; openrc boot; exec openrc "$1"`, stop: `exec openrc "$1"`,
		}
	}
	return style{}
}

// rcScript runs a runlevel's scripts as sysvinit does (init(8), "Environment
// variables").
const rcScript = `for rc in /etc/init.d/rc /etc/rc.d/rc /lib/init/rc; do
	[ ! -x $rc ] || RUNLEVEL=$1 PREVLEVEL=$2 exec $rc "$1"
done
echo "no /etc/init.d/rc and no /etc/rc.d/rc here: install sysv-rc in the guest, or use style plain" >&2
exit 127`

// sh returns the command that runs a script of a style, with its output on the console.
func (st style) sh(script, level, before string) []string {
	return []string{"/bin/sh", "-c", "exec >/dev/console 2>&1\n" + script, "init", level, before}
}

// styleProblem explains why a guest with this init style does not start.
func styleProblem(style string) string {
	known := map[string]string{
		"arch":    "ran /etc/rc.multi, which Arch Linux has replaced by systemd: use plain",
		"minit":   "ran /sbin/minit-start: use command, with the init (/sbin/minit) in apps/init/cmd.start",
		"initng":  "is an init that nobody maintains any more: use plain with the /sbin/init that the guest has now",
		"upstart": "is an init that nobody maintains any more: use plain, which runs the guest's own /sbin/init whatever it is",
		"rescue":  "not a setting: use vserver NAME start --rescue",
	}
	if why, ok := known[style]; ok {
		return fmt.Sprintf("style %s %s", style, why)
	}
	return fmt.Sprintf("style %s is not known: use plain (the guest's own /sbin/init is process 1), sysv or openrc (the scripts of a runlevel), or command and the program in apps/init/cmd.start", style)
}

func (c *Config) readInit(t *tree) error {
	c.Init = api.Init{Style: t.scalar("apps/init/style"), Command: t.list("apps/init/cmd.start")}
	i := &c.initConfig
	if c.readEnvironment(t, "apps/init/environment"); i.Env == nil {
		c.readEnvironment(t, "../.defaults/apps/init/environment")
	}
	i.Runlevel, _ = t.first("apps/init/runlevel.start", "apps/init/runlevel")
	i.StopLevel = t.scalar("apps/init/runlevel.stop")
	i.StartSync, i.StopCommand = t.list("apps/init/cmd.start-sync"), t.list("apps/init/cmd.stop")
	i.Sync = t.has("apps/init/sync")
	text, file := t.first("apps/init/killseq", "../.defaults/apps/init/killseq")
	var err error
	if i.KillSeq, err = parseKillSequence(cmp.Or(text, defaultKillSequence)); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if text, file = t.first("apps/vshelper/sync-timeout", "../.defaults/apps/vshelper/sync-timeout"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 1 || seconds > maxPatience {
			return fmt.Errorf("%s: want a number of seconds from 1 to %d, have %q", file, maxPatience, text)
		}
		i.Patience = time.Duration(seconds) * time.Second
	}
	if s := c.Init.Style; s != "" && s != "plain" && s != "command" && styleOf(s).start == "" {
		c.Unread = append(c.Unread, api.Unread{File: "apps/init/style", Refuses: true, Why: styleProblem(s)})
	} else if s == "command" && len(c.Init.Command) == 0 {
		c.Unread = append(c.Unread, api.Unread{File: "apps/init/style", Refuses: true, Why: "style command runs what is in apps/init/cmd.start, which is not there: write the program into it, one argument per line, or use plain"})
	}
	return nil
}

// readEnvironment reads NAME=VALUE per line.
func (c *Config) readEnvironment(t *tree, file string) {
	text, _ := t.read(file)
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if name, _, found := strings.Cut(line, "="); !found || name == "" || strings.ContainsAny(name, " \t") {
			c.Unread = append(c.Unread, api.Unread{File: fmt.Sprintf("%s:%d", strings.TrimPrefix(file, "../"), n), Why: "want NAME=VALUE"})
			continue
		}
		c.Env = append(c.Env, line)
	}
}

// ownInit reports whether the guest's own /sbin/init is process 1.
func (c Config) ownInit() bool {
	return len(c.Init.Command) == 0 && styleOf(c.Init.Style).start == ""
}

// runlevel returns the runlevel that the guest is started into; "": that of its init.
func (c Config) runlevel() string { return cmp.Or(c.Runlevel, styleOf(c.Init.Style).level) }

// command returns what is run, and whether by a process 1 of ours.
func (c Config) command() (argv []string, reaper bool) {
	st, level := styleOf(c.Init.Style), c.runlevel()
	switch {
	case st.start != "" && len(c.Init.Command) > 0:
		return c.Init.Command, true
	case st.start != "":
		return st.sh(st.start, level, "N"), true
	case len(c.Init.Command) > 0:
		return c.Init.Command, false
	case level != "":
		return []string{"/sbin/init", level}, false
	}
	return []string{"/sbin/init"}, false
}

// rescue replaces the init of a guest that is being started.
func (s *start) rescue() {
	if s.Rescue == nil {
		return
	}
	c := &s.config
	c.initConfig = initConfig{Env: c.Env, KillSeq: c.KillSeq, Patience: c.Patience}
	c.Init = api.Init{Style: "rescue", Command: s.Rescue.Command}
	if len(c.Init.Command) == 0 {
		c.Init.Command = RescueCommand
	}
	s.spec.Argv, s.spec.Reaper = c.Init.Command, !s.Rescue.Init
}

// ending is how a guest is to be stopped. It is noted at its start, so that a stop does
// not depend on what was edited since.
type ending struct {
	Command []string      `json:"command,omitempty"` // run in the guest; none: process 1 gets Signal
	Signal  int           `json:"signal,omitempty"`
	Wait    time.Duration `json:"wait,omitempty"` // for the guest's end, after the command or signal
	Kill    []killStep    `json:"kill,omitempty"` // for the processes that are left
}

func (c Config) ending() ending {
	e := ending{Command: c.StopCommand, Signal: int(unix.SIGINT) /* sysvinit's ctrl-alt-del */, Wait: cmp.Or(c.Patience, initPatience), Kill: c.KillSeq}
	if len(c.Init.Command) > 0 {
		e.Signal = int(unix.SIGTERM)
	} else if st := styleOf(c.Init.Style); st.stop != "" && len(e.Command) == 0 {
		e.Command = st.sh(st.stop, cmp.Or(c.StopLevel, st.stopLevel), c.runlevel())
	}
	if e.Kill == nil {
		e.Kill, _ = parseKillSequence(defaultKillSequence)
	}
	return e
}

// ending returns how the guest is to be stopped. Older vsnodes did not note it.
func (g *Guest) ending() ending {
	if n, err := g.notes(); err == nil && n.Ending != nil {
		return *n.Ending
	}
	return g.knownConfig().ending()
}

// A killStep sends a signal to all processes of a guest but process 1, and waits.
type killStep struct {
	Signal int           `json:"signal"`
	Wait   time.Duration `json:"wait,omitempty"`
}

// defaultKillSequence is Linux-VServer's: SIGTERM, 5 seconds, SIGKILL.
const defaultKillSequence = "15 5 9"

const (
	maxKillSteps = 20
	maxPatience  = 3600 // seconds
)

// parseKillSequence parses "SIGNAL [SECONDS SIGNAL]…", the format of apps/init/killseq.
// SIGKILL ends the sequence, and follows any.
func parseKillSequence(text string) (steps []killStep, err error) {
	words := strings.Fields(text)
	if len(words)%2 == 0 || len(words) > 2*maxKillSteps {
		return nil, fmt.Errorf("want SIGNAL [SECONDS SIGNAL]…, as %s, have %q", defaultKillSequence, text)
	}
	for i, word := range words {
		n, err := strconv.Atoi(strings.TrimPrefix(word, "-"))
		if i%2 == 1 {
			if err != nil || n < 0 || n > maxPatience {
				return nil, fmt.Errorf("want a number of seconds from 0 to %d, have %q", maxPatience, word)
			}
			steps[len(steps)-1].Wait = time.Duration(n) * time.Second
			continue
		}
		if err != nil {
			n = int(unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(strings.TrimPrefix(word, "-")), "SIG")))
		}
		if n < 1 || n > 64 {
			return nil, fmt.Errorf("want a signal, as 15 or TERM, have %q", word)
		}
		steps = append(steps, killStep{Signal: n})
	}
	return steps, nil
}

// runStopCommand runs a command in the guest that is to end it, and waits for the
// command or for the guest's end, at most for wait. A command that the guest's end kills
// has not failed.
func (g *Guest) runStopCommand(ctx context.Context, argv []string, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	null, err := linux.Open(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	run, err := g.host.Exec(ctx, g.name, Program{Argv: argv, Stdin: null, Stdout: null, Stderr: null})
	if err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	done := make(chan error, 1)
	go func() {
		code, err := run.Wait()
		if err == nil && 0 < code && code < 128 {
			done <- fmt.Errorf("%s: exit status %d", argv[0], code)
		}
		close(done) // the guest ends, if Wait fails
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
	}
	return err
}
