package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

const vserverUsage = `vserver [--silent] [--] NAME COMMAND [ARGUMENTS]

  build -m METHOD OPTIONS [-- METHOD'S ARGUMENTS]   make a guest (vserver NAME build --help)
  start | stop | restart | condrestart
  enter                     a shell in the guest, on a terminal
  exec COMMAND…             run a command in it as root
  suexec USER COMMAND…      run a command in it as a user
  log [-n LINES] [-f]       what it wrote to its console; -f: go on with what it writes
  status                    is it running (0), or stopped (3)
  running                   the same without a word: 0 or 1
  revert [RUN]              put back what vsfleet's last run has changed, or all since RUN
  delete                    stop it and remove all of it
  chkconfig, apt-get, apt-config, apt-cache, rpm …   the program of that name, in the guest

NAME may be the context of a guest that runs.
`

// refusedOptions are util-vserver's options of vserver that there are not.
var refusedOptions = refusal{
	"debug":         "there are no scripts to trace; vserver NAME status and the console log say what happened",
	"debug-sysv":    "there are no scripts to trace; vserver NAME status and the console log say what happened",
	"strace":        "trace it yourself: strace -f vserver NAME start",
	"defaulttty":    "a guest's output goes to its console log",
	"--nonamespace": "every guest has its own mounts",
	"--insecure":    "nothing runs in a guest that does not run",
}

// refusedCommands are util-vserver's commands that there are not.
var refusedCommands = refusal{
	"unify":   "guests share what their image holds; nothing is to be unified",
	"hashify": "guests share what their image holds; nothing is to be unified",
	"pkg":     "use the guest's own tool, as vserver NAME exec apt-get install PACKAGE",
	"pkgmgmt": "packages are managed in the guest, by its own tools",
}

// inGuest are commands that run the program of their name in the guest.
var inGuest = []string{"chkconfig", "apt-get", "apt-config", "apt-cache", "rpm"}

var commands = append([]string{
	"build", "start", "stop", "restart", "condrestart", "enter", "exec", "suexec", "log", "status", "running", "revert", "delete",
}, inGuest...)

// Exit statuses of util-vserver's vserver.
const (
	exitUsage   = exitError(2)
	exitStopped = exitError(3) // LSB: program is not running
	exitNoGuest = exitError(5) // LSB: program is not installed
)

func vserver(ctx context.Context, args []string) error {
	silent := false
options:
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "--silent":
			silent = true
		case "-s", "--sync", "-v", "--verbose":
			// A start and a stop always wait, and there is nothing more to say.
		case "--help", "-h":
			_, err := io.WriteString(os.Stdout, vserverUsage)
			return err
		case "--version":
			fmt.Println("vserver (vsnode)", version)
			return nil
		case "--":
			args = args[1:]
			break options
		default:
			name := strings.TrimPrefix(strings.TrimPrefix(args[0], "-"), "-")
			if why := refusedOptions[name]; why != "" {
				fmt.Fprintf(os.Stderr, "vserver: option %s: %s\n", args[0], why)
				return exitError(1)
			}
			near := didYouMean(args[0], []string{"--silent", "--sync", "--verbose", "--help", "--version"})
			fmt.Fprintf(os.Stderr, "vserver: unknown option %s%s\n", args[0], near)
			return exitError(1)
		}
		args = args[1:]
	}
	if len(args) < 2 {
		io.WriteString(os.Stderr, vserverUsage)
		return exitUsage
	}
	name, command := args[0], args[1]
	switch why := refusedCommands[command]; {
	case why != "":
		fmt.Fprintf(os.Stderr, "vserver: %s: %s\n", command, why)
		return exitUsage
	case !slices.Contains(commands, command):
		fmt.Fprintf(os.Stderr, "vserver: unknown command %q%s\n%s", command, didYouMean(command, commands), vserverUsage)
		return exitUsage
	case strings.ContainsRune(name, '/'):
		fmt.Fprintf(os.Stderr, "vserver: %s: configurations lie below /etc/vservers: give the guest's name alone\n", name)
		return exitNoGuest
	}
	h, err := open()
	if err != nil {
		return err
	}
	v := verb{h: h, name: name, silent: silent}
	if xid, err := strconv.Atoi(name); err == nil && command != "build" {
		// util-vserver takes the context of a guest that runs for its name.
		if v.name, err = h.Guests.FindName(name, xid); err != nil {
			return err
		}
	}
	err = v.do(ctx, args[1], args[2:])
	if errors.Is(err, guest.ErrNoGuest) {
		fmt.Fprintf(os.Stderr, "vserver: %v; build it first (vserver %s build -m …)\n", err, v.name)
		return exitNoGuest
	}
	return err
}

// verb is one call of vserver.
type verb struct {
	h      *node.Host
	name   string
	silent bool
}

func (v verb) do(ctx context.Context, command string, args []string) error {
	takes := func(n int) error {
		if len(args) > n {
			fmt.Fprintf(os.Stderr, "vserver: %s takes no argument %q\n", command, args[n])
			return exitUsage
		}
		return nil
	}
	switch command {
	case "build":
		return v.build(ctx, args)
	case "exec", "suexec":
		return v.exec(ctx, command, args)
	case "log":
		return v.log(ctx, args)
	case "revert":
		if err := takes(1); err != nil {
			return err
		}
		return v.revert(ctx, append(args, api.Newest)[0])
	case "start", "stop":
		if len(args) > 0 && strings.HasPrefix(args[0], "--rescue") {
			fmt.Fprintf(os.Stderr, "vserver: option %s: repair the guest's files from the host, where its vdir leads; or give it a program in apps/init/cmd.start\n", args[0])
			return exitError(1)
		}
	}
	if slices.Contains(inGuest, command) {
		return v.exec(ctx, "exec", append([]string{command}, args...))
	}
	if err := takes(0); err != nil {
		return err
	}
	switch command {
	case "start":
		return v.start(ctx, v.h.Guests.Start)
	case "stop":
		return v.stop(ctx)
	case "restart":
		return v.start(ctx, v.h.Guests.Restart)
	case "condrestart":
		on, err := v.h.Guests.Running(v.name)
		if err != nil || !on {
			return err
		}
		return v.start(ctx, v.h.Guests.Restart)
	case "enter":
		return v.run(ctx, guest.Program{})
	case "status":
		return v.status(ctx)
	case "running":
		on, err := v.h.Guests.Running(v.name)
		if err == nil && !on {
			return exitError(1)
		}
		return err
	case "delete":
		return v.delete(ctx)
	}
	return fmt.Errorf("vserver: no command %q", command) // vserver knows them all
}

func (v verb) start(ctx context.Context, start func(context.Context, string, guest.Options) error) error {
	err := start(ctx, v.name, guest.Options{Warn: v.warn})
	if errors.Is(err, guest.ErrRunning) {
		v.say("Vserver '%s' is already running", v.name)
		return nil
	}
	// A command that has done what it was to do.
	if ended := (*guest.EndedError)(nil); errors.As(err, &ended) && ended.End.Signal == "" && ended.End.Status == 0 {
		v.say("Vserver '%s' has ended: %s", v.name, ended.End)
		return nil
	}
	return err
}

func (v verb) revert(ctx context.Context, run string) error {
	if _, err := v.h.Guests.Running(v.name); err != nil {
		return err
	}
	_, err := v.h.Guests.Revert(ctx, v.name, run, guest.Options{Warn: v.warn})
	return err
}

func (v verb) warn(text string) { v.say("Warning: %s", text) }

func (v verb) stop(ctx context.Context) error {
	outcome, err := v.h.Guests.Stop(ctx, v.name)
	if err == nil && outcome == api.Unchanged {
		v.say("Vserver '%s' is not running", v.name)
	}
	return err
}

func (v verb) say(format string, args ...any) {
	if !v.silent {
		fmt.Fprintln(os.Stderr, printable.Lines(fmt.Sprintf(format, args...)))
	}
}

func (v verb) exec(ctx context.Context, command string, args []string) error {
	var p guest.Program
	if command == "suexec" {
		if len(args) < 2 {
			fmt.Fprintln(os.Stderr, "vserver: suexec wants a user and a command")
			return exitUsage
		}
		if on, err := v.h.Guests.Running(v.name); err != nil || !on {
			return errors.Join(err, errors.New("'vserver ... suexec' is supported for running vservers only"))
		}
		var err error
		if p.User, err = v.h.Guests.User(v.name, args[0]); err != nil {
			return err
		}
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintf(os.Stderr, "vserver: %s wants a command\n", command)
		return exitUsage
	}
	p.Argv = args
	return v.run(ctx, p)
}

func (v verb) log(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("log", flag.ContinueOnError)
	lines := fs.Int("n", 100, "")
	follow := fs.Bool("f", false, "")
	if err := flags(fs, args, 0, 0); err != nil {
		return err
	}
	_, err := v.h.Guests.ShowLog(ctx, v.name, *lines, *follow, os.Stdout,
		func(text string) { v.say("%s", text) },
		func(p guest.Program) (int, error) { return 0, v.run(ctx, p) })
	return err
}

func (v verb) run(ctx context.Context, p guest.Program) error {
	code, err := v.h.Guests.Run(ctx, v.name, p)
	if errors.Is(err, guest.ErrNoGuest) {
		return err
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "vserver: %s\n", printable.Lines(err.Error()))
		return exitError(guest.NotRunStatus(err))
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

func (v verb) status(ctx context.Context) error {
	st, err := v.h.Guests.State(v.name)
	if err != nil {
		return err
	}
	defer func() {
		for _, line := range api.Explain(st.Unread) {
			fmt.Printf("Not honoured: %s\n", line)
		}
		if len(api.Refusing(st.Unread)) > 0 {
			fmt.Printf("It does not start like this: see docs/configuration.md, or name these files in %s/ignore\n", v.h.Guests.Dir(v.name))
		}
		if st.Problem != "" {
			fmt.Printf("Its configuration cannot be used: %s\n", st.Problem)
		}
	}()
	if st.Status != api.Running {
		fmt.Printf("Vserver '%s' is stopped\n", v.name)
		if e := st.Ended; e != nil {
			if e.Seen {
				fmt.Printf("Ended: %s, %s\n", e.Time.Format(time.DateTime), e)
			} else {
				fmt.Printf("Ended: before %s, %s; this is also what reboot inside does\n", e.Time.Format(time.DateTime), e)
			}
			if e.LastOutput != "" {
				fmt.Printf("Last output: %s\n", e.LastOutput)
			}
		}
		return exitStopped
	}
	fmt.Printf("Vserver '%s' is running at context '%d'\nNumber of processes: %d\n", v.name, st.Context, st.Processes)
	if !st.Started.IsZero() {
		up := time.Since(st.Started)
		days := ""
		if d := int(up.Hours()) / 24; d > 0 {
			days = fmt.Sprintf("%d days, ", d)
		}
		fmt.Printf("Uptime: %s%02d:%02d\n", days, int(up.Hours())%24, int(up.Minutes())%60)
	}
	drift, err := v.h.Guests.Drift(ctx, v.name)
	for _, gone := range drift[v.name] {
		fmt.Printf("Changed since its start: %s (vserver %s start puts it back)\n", gone, v.name)
	}
	return err
}

func (v verb) delete(ctx context.Context) error {
	if _, err := v.h.Guests.Running(v.name); errors.Is(err, guest.ErrNoGuest) {
		return err // nobody is asked about what is not there
	}
	if !v.silent {
		fmt.Printf("Are you sure you want to delete the vserver %s (y/N) ", v.name)
		answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return exitUsage
		}
	}
	return v.h.Guests.Delete(ctx, v.name)
}
