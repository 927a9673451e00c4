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
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vsfleet/vsfleet/internal/printable"
	"github.com/vsfleet/vsfleet/node/api"
	"github.com/vsfleet/vsfleet/node/guest"
)

// do does a verb that knownVerb lets through.
func (v verb) do(ctx context.Context, command string, args []string) error {
	ctx = guest.WithOutput(guest.WithWarn(ctx, v.warn), func(line string) { v.say("%s", line) })
	if slices.Contains([]string{"enter", "exec", "suexec", "status", "running"}, command) {
		if err := v.h.Guests.Wake(ctx, v.name); err != nil {
			return err
		}
	}
	switch command {
	case "build":
		return v.build(ctx, args)
	case "adopt":
		return v.adopt(ctx, args)
	case "start":
		return v.startVerb(ctx, args)
	case "enter", "exec":
		return v.exec(ctx, command, args)
	case "suexec":
		return v.suexec(ctx, args)
	case "pkg":
		return v.pkg(ctx, args)
	case "chkconfig", "apt-get", "apt-config", "apt-cache", "rpm":
		return v.run(ctx, guest.Program{Argv: append([]string{command}, args...)})
	case "hashify":
		return hashify(ctx, v.h, []string{v.name}, args, v.out)
	case "log":
		return v.log(ctx, args)
	case "list":
		if _, err := v.h.Guests.Running(v.name); err != nil {
			return err
		}
		return listGuests(ctx, v.h, args, func(name string) bool { return name == v.name })
	case "revert":
		if len(args) > 1 {
			return v.takesNo(command, args[1])
		}
		return v.revert(ctx, append(args, api.Newest)[0])
	case "stop":
		if len(args) > 0 && args[0] == "--rescue-init" {
			args = args[1:]
		}
	case "delete":
		args = v.takeYes(args)
	}
	if len(args) > 0 {
		return v.takesNo(command, args[0])
	}
	switch command {
	case "stop":
		return v.stop(ctx)
	case "restart":
		return v.start(ctx, "restart", guest.Options{})
	case "condrestart":
		on, err := v.h.Guests.Running(v.name)
		if err != nil || !on {
			return err
		}
		return v.start(ctx, "restart", guest.Options{})
	case "limits":
		return v.limits(ctx)
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
	return fmt.Errorf("vserver: no command %q", command) // words has them all
}

func (v verb) wrong(format string, args ...any) error {
	fmt.Fprintf(v.errs, "vserver: "+format+"\n", args...)
	return exitUsage
}

func (v verb) takesNo(command, arg string) error {
	if strings.HasPrefix(arg, "-") {
		return unknownOption("vserver "+command, command, arg)
	}
	return v.wrong("%s takes no argument %q", command, arg)
}

// startVerb reads the options of start.
func (v verb) startVerb(ctx context.Context, args []string) error {
	var rescue *guest.Rescue
	as := func() *guest.Rescue {
		if rescue == nil {
			rescue = &guest.Rescue{}
		}
		return rescue
	}
options:
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		option := args[0]
		args = args[1:]
		switch option {
		case "-s", "--sync":
			v.sync = true
		case "--rescue":
			as()
		case "--rescue-init":
			as().Init = true
		case "--rescue-cmd":
			if len(args) == 0 {
				return v.wrong("start: option --rescue-cmd needs a command")
			}
			as().Command, args = []string{args[0]}, args[1:]
		case "--":
			break options
		default:
			return unknownOption("vserver start", "start", option)
		}
	}
	switch {
	case len(args) > 0 && rescue == nil:
		return v.wrong("start takes no argument %q; a command goes with --rescue", args[0])
	case len(args) > 0:
		rescue.Command = args
	}
	return v.start(ctx, "start", guest.Options{Rescue: rescue})
}

func (v verb) start(ctx context.Context, how string, opt guest.Options) error {
	opt.Warn, opt.Sync = v.warn, v.sync
	start := v.h.Guests.Start
	if how == "restart" {
		start = v.h.Guests.Restart
	}
	err := start(ctx, v.name, opt)
	if err == nil || errors.Is(err, guest.ErrRunning) {
		for _, text := range v.h.Guests.Lacks(v.name, nil) {
			v.warn(text)
		}
	}
	if errors.Is(err, guest.ErrRunning) {
		v.say("vserver '%s' already running", v.name)
		return nil
	}
	// A command that has done what it was to do.
	if ended := (*guest.EndedError)(nil); errors.As(err, &ended) && ended.End.Signal == "" && ended.End.Status == 0 {
		v.say("Vserver '%s' has ended: %s", v.name, ended.End)
		return nil
	}
	if err == nil {
		v.report("Vserver '%s' is %sed", v.name, how)
	}
	return err
}

func (v verb) stop(ctx context.Context) error {
	outcome, err := v.h.Guests.Stop(ctx, v.name)
	switch {
	case err != nil:
		return err
	case outcome == api.Unchanged:
		v.say("vserver '%s' is not running", v.name)
	default:
		v.report("Vserver '%s' is stopped", v.name)
	}
	return nil
}

func (v verb) revert(ctx context.Context, run string) error {
	if _, err := v.h.Guests.Running(v.name); err != nil {
		return err
	}
	_, err := v.h.Guests.Revert(ctx, v.name, run, guest.Options{Warn: v.warn})
	return err
}

func (v verb) log(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("log", flag.ContinueOnError)
	lines := fs.Int("n", 100, "")
	follow := fs.Bool("f", false, "")
	if err := flags(fs, args, 0, 0); err != nil {
		return err
	}
	if *follow && !v.alone {
		return v.wrong("log -f is for one guest: vserver NAME log -f")
	}
	_, err := v.h.Guests.ShowLog(ctx, v.name, *lines, *follow, v.out,
		func(text string) { v.say("%s", text) },
		func(p guest.Program) (int, error) { return 0, v.run(ctx, p) })
	return err
}

// status prints what scripts read: the first two lines and the uptime are
// util-vserver's, column by column.
func (v verb) status(ctx context.Context) error {
	st, err := v.h.Guests.State(v.name)
	if err != nil {
		return err
	}
	if v.silent {
		if st.Status != api.Running {
			return exitStopped
		}
		return nil
	}
	defer v.explainFiles(st)
	if st.Status != api.Running {
		fmt.Fprintf(v.out, "Vserver '%s' is stopped\n", v.name)
		if e := st.Ended; e != nil {
			if e.Seen {
				fmt.Fprintf(v.out, "Ended: %s, %s\n", e.Time.Format(time.DateTime), e)
			} else {
				fmt.Fprintf(v.out, "Ended: before %s, %s; this is also what reboot inside does\n", e.Time.Format(time.DateTime), e)
			}
			if e.LastOutput != "" {
				fmt.Fprintf(v.out, "Last output: %s\n", e.LastOutput)
			}
		}
		return exitStopped
	}
	fmt.Fprintf(v.out, "Vserver '%s' is running at context '%d'\nNumber of processes:  %d\n", v.name, st.Context, st.Processes)
	if !st.Started.IsZero() {
		fmt.Fprintf(v.out, "Uptime:               %s\n", uptime(time.Since(st.Started)))
	}
	drift, err := v.h.Guests.Drift(ctx, v.name)
	for _, gone := range drift[v.name] {
		fmt.Fprintf(v.out, "Changed since its start: %s (vserver %s start puts it back)\n", gone, v.name)
	}
	if st.Runs != nil && st.Runs.Init.Style == "rescue" {
		fmt.Fprintln(v.out, "Init:                 rescue, until its next start")
	}
	return err
}

func uptime(up time.Duration) string {
	days := ""
	if d := int(up.Hours()) / 24; d > 0 {
		days = fmt.Sprintf("%d days, ", d)
	}
	return fmt.Sprintf("%s%02d:%02d", days, int(up.Hours())%24, int(up.Minutes())%60)
}

// explainFiles prints what is wrong with a guest's configuration.
func (v verb) explainFiles(st api.GuestState) {
	for _, line := range api.Explain(st.Unread) {
		fmt.Fprintf(v.out, "No effect: %s\n", line)
	}
	if len(api.Refusing(st.Unread)) > 0 {
		fmt.Fprintf(v.out, "The guest cannot start with this configuration: see docs/configuration.md; to start without these files, list them in %s/ignore\n", v.h.Guests.Dir(v.name))
	}
	if st.Problem != "" {
		fmt.Fprintf(v.out, "Its configuration cannot be used: %s\n", st.Problem)
	}
}

func (v verb) delete(ctx context.Context) error {
	if _, err := v.h.Guests.Running(v.name); errors.Is(err, guest.ErrNoGuest) {
		return err // nobody is asked about what is not there
	}
	if !v.silent && v.alone {
		if err := confirm("Are you sure you want to delete the vserver %s (y/N) ", v.name); err != nil {
			return err
		}
	}
	c, _ := v.h.Guests.Read(v.name) // one whose configuration is damaged is deleted, too
	err := v.h.Guests.Delete(ctx, v.name)
	if err == nil && len(c.Guest.Volumes) > 0 {
		v.say("its volumes are kept: vsnode volume list")
	}
	return err
}

// takeYes takes --yes off the arguments of delete: it does not ask then.
func (c *call) takeYes(args []string) []string {
	if len(args) == 0 || args[0] != "--yes" {
		return args
	}
	c.silent = true
	return args[1:]
}

// confirm asks on standard output and reads the answer from standard input.
func confirm(format string, args ...any) error {
	fmt.Print(printable.Lines(fmt.Sprintf(format, args...)))
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return exitUsage
	}
	return nil
}

// pkg runs the guest's own package manager.
func (v verb) pkg(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return v.wrong("pkg: install PACKAGE… or get-conffiles?")
	}
	var managers [][]string
	switch {
	case args[0] == "install" && len(args) > 1:
		managers = installers
	case args[0] == "install":
		return v.wrong("pkg install: which packages?")
	case args[0] == "get-conffiles" && len(args) == 1:
		managers = [][]string{{"dpkg-query", "-W", "-f", "${Conffiles}\n"}, {"rpm", "-qac"}}
	default:
		return v.wrong("pkg: unknown command %q%s", args[0], didYouMean(args[0], []string{"install", "get-conffiles"}))
	}
	for _, m := range managers {
		code, err := v.runProgram(ctx, guest.Program{Argv: append(append([]string{}, m...), args[1:]...)})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		return v.ended(code, err)
	}
	fmt.Fprintf(v.errs, "vserver: pkg: guest %s has none of the package managers that are known (apt-get, dnf, yum, zypper, apk, pacman, xbps-install, emerge): use vserver %s exec\n", v.name, v.name)
	return exitError(1)
}

// installers are the commands that install packages without asking.
var installers = [][]string{
	{"apt-get", "-y", "install"}, {"dnf", "-y", "install"}, {"yum", "-y", "install"}, {"zypper", "--non-interactive", "install"},
	{"apk", "add"}, {"pacman", "--noconfirm", "-S"}, {"xbps-install", "-y"}, {"emerge"},
}
